// The gallery: answers that were given, with their clips; each of one's own can be answered again.

const settings = JSON.parse(document.getElementById("settings").textContent);
const $ = (id) => document.getElementById(id);
const filters = $("filters");
const NAMES = { newest: "newest first", surprise: "what the learned reward expected least", disagreement: "where people disagree most" };
let shown = 0, asking = 0;

const make = (tag, properties = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...inside);
  return element;
};

async function ask(path, content) {
  const options = content === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json", "x-prefrl": settings.csrf }, body: JSON.stringify(content),
  };
  const answer = await fetch(path, { ...options, signal: AbortSignal.timeout(20000) }).catch(() => { throw new Error("The server cannot be reached."); });
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error || `The server says ${answer.status}.`);
  return found;
}

const played = new IntersectionObserver((changes) => { // only what is seen plays
  for (const { target, isIntersecting } of changes) if (isIntersecting) target.play().catch(() => {}); else target.pause();
}, { threshold: 0.25 });

const percent = (share) => `${share < 0.01 ? "< 1" : Math.round(100 * share)} %`;

function card(entry) {
  const items = entry.items.map((item, place) => {
    const best = entry.ranks.length && entry.ranks[place] === 1 && new Set(entry.ranks).size > 1;
    const box = make("div", { className: best ? "item best" : "item" });
    if (item.clip) {
      const video = make("video", { src: item.clip, muted: true, loop: true, playsInline: true, preload: "metadata", disablePictureInPicture: true });
      video.style.aspectRatio = `${item.width} / ${item.height}`;
      played.observe(video);
      box.append(video);
    } else box.append(make("div", { className: item.problem ? "problem" : "text", textContent: item.problem || item.text }));
    const mark = entry.items.length === 2 ? ["Left", "Right"][place] : entry.ranks.length ? `rank ${entry.ranks[place]}` : "";
    if (mark) box.append(make("span", { className: "badge", textContent: best && entry.items.length === 2 ? `${mark}: better` : mark }));
    return box;
  });
  const facts = [
    entry.annotator, entry.at ? new Date(1000 * entry.at).toLocaleString() : "", `${entry.seconds.toFixed(1)} s`,
    entry.steps ? `asked after ${entry.steps.toLocaleString()} steps` : "", entry.repeat ? "asked again" : "",
  ];
  const notes = [];
  if (entry.probability !== null) notes.push(`The learned reward gave this answer ${percent(entry.probability)}.`);
  if (entry.others) notes.push(entry.differ ? `${entry.differ} of ${entry.others} other answers to it say something else.` : "All others say the same.");
  if (entry.tooFast) notes.push("Too fast to have been looked at.");
  if (entry.flagged) notes.push("Flagged: somebody should look at it.");
  if (entry.reason) notes.push(`Why: ${entry.reason}.`);
  if (entry.comment) notes.push(`“${entry.comment}”`);
  const act = make("button", { type: "button", className: "quiet" });
  if (entry.mine) {
    act.textContent = "Answer again";
    act.addEventListener("click", () => { location.assign(`./#again=${entry.row}`); });
  } else if (entry.reopen) {
    act.textContent = "Take back and ask again";
    act.addEventListener("click", () => reopen(entry, act));
  } else act.hidden = true;
  const made = make("article", { className: "entry" },
    ...(entry.prompt ? [make("div", { className: "text prompt", textContent: entry.prompt })] : []),
    make("div", { className: "items" }, ...items),
    make("p", { className: "said", textContent: entry.said }),
    make("p", { className: "facts", textContent: facts.filter(Boolean).join(" · ") }),
    ...notes.map((note) => make("p", { className: "note", textContent: note })),
    make("p", { className: "facts id", textContent: `row ${entry.row} · query ${entry.query}` }), act);
  made.dataset.row = entry.row;
  made.dataset.num = entry.items.length;
  return made;
}

async function reopen(entry, button) {
  if (button.dataset.sure === undefined) {
    button.dataset.sure = "";
    button.textContent = `Really? ${entry.annotator}'s answer goes, and the question is asked again`;
    button.className = "second";
    return;
  }
  try {
    await ask("reopen", { row: entry.row });
    button.closest(".entry").replaceChildren(make("p", { textContent: `Taken back: whoever answers next is asked this again.` }));
  } catch (error) { $("notice").textContent = error.message; }
}

function fillIn(select, options, chosen) {
  if (select.length !== options.length) select.replaceChildren(...options.map(([value, name]) => make("option", { value, textContent: name })));
  select.value = chosen ?? "";
}

async function show(more = false) {
  const number = ++asking;
  const wanted = Object.fromEntries([...new FormData(filters)].filter(([, value]) => value));
  const query = new URLSearchParams(filters.dataset.ready === undefined ? location.search : wanted);
  if (filters.dataset.ready !== undefined) history.replaceState(null, "", `?${query}`);
  query.set("offset", more ? shown : 0);
  let found;
  try { found = await ask(`answers?${query}`); } catch (error) { if (number === asking) $("notice").textContent = error.message; return; }
  if (number !== asking) return; // another was wanted meanwhile
  $("notice").textContent = "";
  const { entries, total, people, choices, orders, computing } = found;
  const everybody = settings.owner && people.length !== 1 ? [["", "everybody"]] : [];
  fillIn(filters.annotator, [...everybody, ...people.map((name) => [name, name])], found.wanted.annotator ?? (everybody.length ? "" : people[0]));
  fillIn(filters.only, Object.entries(choices), found.wanted.only);
  fillIn(filters.order, orders.map((name) => [name, NAMES[name]]), found.wanted.order);
  if (document.activeElement !== filters.find) filters.find.value = found.wanted.find;
  filters.dataset.ready = "";
  if (more) $("entries").append(...entries.map(card)); else { played.disconnect(); $("entries").replaceChildren(...entries.map(card)); }
  shown = $("entries").children.length;
  $("total").textContent = `${total} ${total === 1 ? "answer" : "answers"}${computing ? " · asking the learned reward what it expected …" : ""}`;
  $("more").hidden = shown >= total;
  document.body.dataset.shown = shown;
  if (computing) setTimeout(() => { if (number === asking) show(); }, 3000);
}

filters.addEventListener("change", () => show());
filters.addEventListener("submit", (event) => { event.preventDefault(); show(); });
$("more").addEventListener("click", () => show(true));
addEventListener("keydown", (event) => {
  if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "g" || event.key === "Escape") location.assign("./");
});
if (/^#[\w-]{21,}$/.test(location.hash)) { // somebody's link: they look as themselves, whoever was signed in here before
  const token = location.hash.slice(1);
  history.replaceState(null, "", location.pathname + location.search);
  await ask("enter", { token }).then(() => location.reload(), (error) => { $("notice").textContent = error.message; });
}
try { document.body.classList.toggle("contrast", localStorage.getItem("prefrl contrast") === "true"); } catch { /* as it is */ }
show();
