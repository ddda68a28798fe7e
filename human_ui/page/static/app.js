// Draws the session, brings questions and their clips ahead of need, and sends answers until the record has them.
import { showOutcome } from "./outcome.js";
import { Session } from "./session.js";
import { Campaign } from "./campaign.js";
import { textOf } from "./text.js";

const AHEAD = 3; // questions that lie ready beside the one that is shown
const KEPT_CLIPS = 24; // of questions gone by, for undo
const RENEW_SECONDS = 15, WAIT_SECONDS = 1;
const SHOW_EVERY = 60; // milliseconds
const FLASH_SECONDS = 0.18; // for which what was chosen is shown
const settings = JSON.parse(document.getElementById("settings").textContent);
const $ = (id) => document.getElementById(id);
const session = new Session({ mustSee: settings.mustSee, breakAfter: settings.breakAfter });
const store = `prefrl ${settings.place} ${settings.name} `;

let standing = null, stage = settings.stage, finished = false, completion = null, texts = false, marked = false, away = false, signedOut = false, recordTrouble = "";
let videos = [], drawn = "", entering = false, flashing = 0, before = performance.now();
const outbox = []; // answers and what was taken back, until the record has them
const clips = new Map(); // name of a clip: promise of its address here

// ---------------------------------------------------------------------------------------------------- the network

class Refusal extends Error { constructor(status, message) { super(message); this.status = status; } }

async function ask(path, content) {
  const options = content === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json", "x-prefrl": settings.csrf }, body: JSON.stringify(content),
  };
  let answer;
  try { answer = await fetch(path, { ...options, signal: AbortSignal.timeout(20000) }); }
  catch { away = true; throw new Refusal(0, "The server cannot be reached."); }
  if ([502, 504].includes(answer.status)) { away = true; throw new Refusal(0, "The server cannot be reached."); }
  away = false;
  let found = {};
  try { found = await answer.json(); } catch { /* of something between us and the server */ }
  if (answer.status === 401) signedOut = true;
  if (!answer.ok) throw new Refusal(answer.status, found.error || `The server says ${answer.status}.`);
  return found;
}

const sleep = (seconds) => new Promise((done) => { setTimeout(done, 1000 * seconds); });
let wake = () => {};
const rest = (seconds) => Promise.race([sleep(seconds), new Promise((done) => { wake = done; })]);

const newName = () => `${Date.now()} ${Math.random()}`;
let page = newName(); // once it is closed, what it asked for before is given to nobody
let loading = []; // questions that were brought, while their clips are fetched
const held = () => [session.question, ...session.ready, ...loading].filter(Boolean).map((question) => question.ticket);

async function bring() {
  for (;;) {
    const practising = outbox.some((entry) => entry.practice); // what comes next depends on how it went
    const want = practising ? 0 : AHEAD + 1 - held().length;
    let brought = 0;
    if (!session.introducing || want > AHEAD) {
      try {
        const unsent = outbox.filter((entry) => entry.ticket).map((entry) => entry.ticket); // theirs still, and counted
        const found = await ask("next", { page, held: [...held(), ...unsent], want: Math.max(0, want) });
        ({ stage, finished = false, completion = null } = found);
        standing = found.standing ?? standing;
        recordTrouble = "";
        session.ready = session.ready.filter((question) => !found.lost.includes(question.ticket));
        loading = found.questions;
        for (; loading.length; brought += 1) { await load(loading[0]); offer(loading.shift()); }
      } catch (error) {
        if (error.status === 503) recordTrouble = error.message;
        brought = 0;
      }
    }
    if (signedOut) return;
    await rest(brought ? 0.05 : held().length ? (held().length > AHEAD ? RENEW_SECONDS : 3) : away ? 2 : WAIT_SECONDS);
  }
}

function offer(question) {
  texts ||= question.prompt !== null;
  session.offer(question);
}

async function load(question) {
  await Promise.all(question.items.filter((item) => item.clip).map(async (item) => {
    try { item.address = await clip(item.clip); } catch { item.problem = "Its clip could not be fetched."; }
  }));
}

function clip(name) {
  if (!clips.has(name)) {
    const fetched = (async () => {
      for (let attempt = 0; ; attempt += 1) {
        try {
          const answer = await fetch(name);
          if (answer.ok) return URL.createObjectURL(await answer.blob());
          if (answer.status < 500 && answer.status !== 429) throw new Refusal(answer.status, "no such clip");
        } catch (error) { if (error instanceof Refusal || attempt > 60) throw error; }
        await sleep(Math.min(5, 0.5 * 2 ** attempt));
      }
    })();
    clips.set(name, fetched);
    fetched.catch(() => clips.delete(name));
  }
  return clips.get(name);
}

async function forgetClips() {
  const needed = new Set([session.question, ...session.ready].filter(Boolean).flatMap((q) => q.items.map((item) => item.clip)));
  for (const [name, address] of [...clips].slice(0, Math.max(0, clips.size - KEPT_CLIPS))) {
    if (needed.has(name)) continue;
    clips.delete(name);
    address.then((found) => URL.revokeObjectURL(found), () => {});
  }
}

// ---------------------------------------------------------------------------------------------------- what is to be kept

function keep(entry) {
  entry.key = store + newName();
  outbox.push(entry);
  try { localStorage.setItem(entry.key, JSON.stringify({ ...entry, reply: undefined })); } catch { /* kept here alone */ }
  send();
}

function drop(entry) {
  outbox.splice(outbox.indexOf(entry), 1);
  try { localStorage.removeItem(entry.key); } catch { /* as above */ }
}

function takeUp() { // what an earlier page could not send any more
  try {
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(store)).sort();
    for (const key of keys) outbox.push(JSON.parse(localStorage.getItem(key)));
  } catch { /* no storage here */ }
  send();
}

let sending = false;
async function send() {
  if (sending) return;
  sending = true;
  for (let attempt = 0; outbox.length && !signedOut;) {
    const [entry] = outbox;
    try {
      if (entry.undo) {
        const { question } = await ask("undo", { ticket: entry.undo });
        await load(question);
        offer({ ...question, again: entry.undo });
      } else {
        const found = await ask("answer", { ...entry.said, ticket: entry.ticket, ago: Math.max(0, Date.now() / 1000 - entry.at) });
        if ("right" in found) told(found.right);
        else if (found.notice) session.tell(found.notice);
        if (entry.practice) wake();
      }
      recordTrouble = "";
      drop(entry);
      attempt = 0;
    } catch (error) {
      if ([0, 401, 408, 429, 500, 503].includes(error.status)) {
        if (error.status === 503) recordTrouble = error.message;
        attempt += 1;
        await Promise.race([sleep(Math.min(10, 0.5 * 2 ** attempt)), new Promise((done) => addEventListener("online", done, { once: true }))]);
      } else {
        drop(entry);
        session.tell(error.message, 8);
        if (entry.undo) { session.awaited = null; session.moreUndos = 0; session.next(); }
      }
    }
  }
  sending = false;
}

function told(right) {
  const told = right ? "Right: that is what is known of these two." : "It is known otherwise: look again at what to look for.";
  session.tell(`Practice. ${told}`, 5);
}

function carryOut() {
  for (const command of session.takeCommands()) {
    if (command.save) {
      const { question, said, seconds, answeredAt, seen } = command.save;
      keep({ ticket: question.ticket, said: { ...said, seconds, seen }, at: answeredAt, practice: question.practice });
      forgetClips();
      wake();
    } else {
      const { question } = command.takeBack;
      keep({ undo: question.ticket });
    }
  }
}

// ---------------------------------------------------------------------------------------------------- what is seen

const make = (tag, properties = {}, ...inside) => {
  const { dataset = {}, ...others } = properties;
  const element = Object.assign(document.createElement(tag), others);
  Object.assign(element.dataset, dataset);
  element.append(...inside);
  return element;
};

const kindOf = ({ graded, items }) => (graded ? (items.length === 2 ? "strength" : "rating") : items.length === 2 ? "comparison" : "ranking");
const isPair = (kind) => kind === "comparison" || kind === "strength";
const stacked = () => matchMedia("(max-width: 640px) and (orientation: portrait)").matches;
const sides = () => (stacked() ? ["Upper", "Lower"] : ["Left", "Right"]);

function showItems() {
  const { question } = session;
  videos = [];
  const cards = question.items.map((item, place) => {
    const card = make("div", { className: "card", dataset: { place } });
    card.tabIndex = -1;
    if (item.problem) card.append(make("p", { className: "problem", textContent: `This clip cannot be shown: ${item.problem}` }));
    else if (item.clip) {
      const video = make("video", { muted: true, playsInline: true, preload: "auto", disablePictureInPicture: true });
      video.src = item.address;
      video.style.aspectRatio = `${item.width} / ${item.height}`;
      video.addEventListener("error", () => {
        item.problem = "this browser cannot play it, or it is damaged.";
        drawn = "";
        showItems();
      });
      videos.push(video);
      card.append(video);
    } else card.append(textOf(item, marked), campaign.editButton(place));
    if (question.items.length > 1) card.append(make("span", { className: "badge" }));
    if (question.items.length > 2) {
      card.append(make("span", { className: "rank" }), make("button", { className: "tie", type: "button", textContent: "= tie with the one before" }));
    }
    return card;
  });
  $("items").replaceChildren(...cards);
  $("items").dataset.kind = kindOf(question);
  $("items").dataset.ticket = question.ticket;
  $("items").dataset.num = question.items.length;
  $("items").dataset.text = question.items.some((item) => item.text !== undefined);
  $("timeline").max = session.numFrames - 1;
}

function showAnswers() {
  const { question } = session;
  const button = (label, key, act, className = "") => {
    const made = make("button", { type: "button", className }, make("span", { textContent: label }), make("kbd", { textContent: key }));
    made.addEventListener("click", () => choose(act));
    return made;
  };
  const cannotTell = button("Can't tell", "↓", () => session.press("cannot_tell"), "quiet");
  let buttons;
  if (kindOf(question) === "comparison") {
    const [first, second] = sides();
    buttons = [
      button(`${first} is better`, "←", () => session.press("left"), "first"), button("Equal", "↑", () => session.press("tie"), "quiet"),
      cannotTell, button(`${second} is better`, "→", () => session.press("right"), "second"),
    ];
  } else if (kindOf(question) === "strength") {
    const [first, second] = sides();
    const degrees = ["much", "", "slightly"];
    const grade = (at) => {
      const label = at === 3 ? "Equal" : `${at < 3 ? first : second} ${degrees[at < 3 ? at : 6 - at]} better`.replace("  ", " ");
      return button(label, String(at + 1), () => session.digit(at + 1), at < 3 ? "first degree" : at > 3 ? "second degree" : "quiet degree");
    };
    buttons = [...Array.from({ length: 7 }, (_, at) => grade(at)), cannotTell];
  } else if (question.graded) {
    const grades = Array.from({ length: question.scale }, (_, index) => button(String(index + 1), "", () => session.digit(index + 1), "grade"));
    buttons = [make("span", { className: "end", textContent: "worst" }), ...grades, make("span", { className: "end", textContent: "best" }), cannotTell];
  } else {
    const done = button("This order", "Enter", () => session.press("confirm"), "first");
    done.id = "done";
    buttons = [make("span", { className: "end", textContent: "Best first: drag, or tap from best to worst" }), done, cannotTell];
  }
  $("answers").replaceChildren(...buttons);
}

function showOrder() {
  const { arranged, ranked } = session;
  const ranks = new Map(ranked.flatMap((group, at) => group.map((place) => [place, at + 1])));
  let rank = 0;
  arranged?.forEach(({ place, tied }, at) => { if (!tied) rank = at + 1; ranks.set(place, rank); });
  for (const card of $("items").children) {
    const place = Number(card.dataset.place);
    const badge = card.querySelector(".badge");
    if (badge) badge.textContent = isPair(kindOf(session.question)) ? sides()[place] : String(place + 1);
    const mark = card.querySelector(".rank");
    if (mark) mark.textContent = ranks.has(place) ? `rank ${ranks.get(place)}` : "";
    const at = arranged ? arranged.findIndex((one) => one.place === place) : place;
    card.style.order = at;
    card.classList.toggle("arranged", Boolean(arranged) && at > 0);
    card.classList.toggle("tied", Boolean(arranged?.[at]?.tied));
  }
  if ($("done")) $("done").disabled = !arranged;
}

function show() {
  const { question } = session;
  const screen = entering ? "waiting" : campaign.withdrawn ? "withdrawn" : stage === "consent" ? "consent" : session.introducing && stage !== "done" ? "introduction"
    : stage === "failed" ? "end" : session.resting ? "break" : question ? "question"
    : (finished || stage === "done") && session.awaited === null && !outbox.length ? "end" : "waiting";
  const state = JSON.stringify([screen, question?.ticket, stacked(), marked, stage, question?.items.map((item) => Boolean(item.problem))]);
  if (state !== drawn) {
    drawn = state;
    document.body.dataset.screen = screen;
    $("progress").hidden = !["waiting", "end"].includes(screen);
    if (screen === "question") { showItems(); showAnswers(); }
    else { videos = []; $("items").replaceChildren(); }
    if (!$("progress").hidden) showProgress();
    $("prompt").textContent = question?.prompt ?? "";
    $("prompt").hidden = screen !== "question" || question?.prompt === null;
    $("player").hidden = screen !== "question" || session.numFrames < 2;
    $("answers").hidden = screen !== "question";
    document.body.classList.toggle("practice", Boolean(question?.practice));
  }
  campaign.show(screen, question, texts);
  if (screen === "question") showOrder();
  const look = settings.instruction || question?.instruction || "";
  $("look").textContent = look.replaceAll(/\s+/g, " ");
  $("look").hidden = !look;
  $("title").textContent = [settings.environment, settings.run].filter(Boolean).join(" · ");
  showCounts();
  showHeading(screen);
  showNotice();
  if (screen === "question" && session.numFrames > 1) showPlayer();
}

const percent = ({ share, num }) => `${Math.round(100 * share)} % of ${num} answers held out`;

function showCounts() {
  if (!standing) return;
  const { answered, wanted, left, agreement, training } = standing;
  $("counts").textContent = wanted ? `${answered} of ${wanted} answered` : `${answered} answered · ${left} left`;
  $("meter").value = wanted ? Math.min(1, answered / wanted) : answered / Math.max(1, answered + left);
  const agrees = agreement ? `the learned reward agrees with ${percent(agreement)}` : "";
  $("training").textContent = [training, agrees].filter(Boolean).join(" · ");
}

function showHeading(screen) {
  const told = {
    introduction: ["What to look for", settings.instruction || session.question?.instruction || "Say which one is better."],
    consent: ["Before you begin", settings.consent.text],
    break: ["Time for a rest", "You have answered for a while. Look out of the window for a minute or two; nothing is lost, and no time counts."],
    withdrawn: ["You have withdrawn", "Everything that you said, your name and your link have been removed. You may close this page."],
    waiting: ["One moment", standing && !standing.open ? "The training will ask again soon." : `The next ${texts ? "questions" : "clips"} are being prepared.`],
    end: stage === "failed" ? ["Thank you", "The practice questions went otherwise than is known. Please ask whoever sent you the link what to look for."]
      : ["That is all: thank you", "Everything you said is in the record."],
    question: ["", ""],
  }[screen];
  if (screen === "waiting" && standing && standing.open && !standing.running)
    told[1] = texts ? "Somebody else has what is left." : "Somebody else has what is left, or its clips are drawn when the training goes on.";
  if (screen === "waiting" && standing?.wanted && standing.answered >= standing.wanted)
    told.splice(0, 2, "All answers are in", "The agent makes its last stretch of training with them. You may close this page.");
  [$("heading").textContent, $("told").textContent] = told;
  $("heading").hidden = $("told").hidden = screen === "question";
  $("begin").hidden = !["introduction", "break"].includes(screen);
  $("begin").textContent = screen === "break" ? "Go on" : "Begin";
  $("again").hidden = screen !== "introduction" || stage !== "practising";
}

function showNotice() {
  const unsent = outbox.length;
  let told = session.notice, alarm = false;
  if (campaign.withdrawn) told = "";
  else if (signedOut) [told, alarm] = ["You are signed out: open your link again. What you answered is kept here until then.", true];
  else if (away) {
    const kept = unsent ? ` ${unsent} ${unsent === 1 ? "answer is" : "answers are"} kept here and sent when it is back.` : "";
    [told, alarm] = [`No connection.${kept}`, true];
  } else if (recordTrouble) [told, alarm] = [`${recordTrouble} ${unsent ? `${unsent} kept here and tried again.` : ""}`, true];
  else if (session.question?.practice && !told) told = "Practice: the answer to this one is known.";
  if ($("notice").textContent !== told) $("notice").textContent = told;
  $("notice").classList.toggle("alarm", alarm);
  $("saved").textContent = unsent ? `${unsent} not saved yet` : session.given.length ? "All saved" : "";
  document.body.dataset.unsent = unsent;
}

function showPlayer() {
  const slider = $("timeline");
  if (document.activeElement !== slider || !slider.matches(":active")) slider.value = session.frame;
  $("frame").textContent = `${session.frame + 1} / ${session.numFrames}`;
  $("play").classList.toggle("paused", session.paused);
  $("play").setAttribute("aria-label", session.paused ? "Play" : "Pause");
  $("speed").textContent = `× ${session.speed}`;
  $("seen").hidden = !(session.mustSee > 0 && session.seen < session.mustSee);
}

function follow() { // lets the videos show what the session says
  const playing = !session.paused && !session.introducing && document.visibilityState === "visible";
  const wanted = session.paused ? (session.frame + 0.5) / session.rate : session.position;
  for (const video of videos) {
    if (video.readyState < 1) continue;
    const end = video.duration - 0.5 / session.rate;
    const target = Math.min(wanted, end);
    if (playing && wanted < end) {
      if (video.playbackRate !== session.speed) video.playbackRate = session.speed;
      if (Math.abs(video.currentTime - target) > 0.1 * Math.max(1, session.speed) && !video.seeking) video.currentTime = target;
      if (video.paused) video.play().catch((error) => { if (error.name === "NotAllowedError") session.paused = true; });
    } else {
      if (!video.paused) video.pause();
      if (Math.abs(video.currentTime - target) > 0.2 / session.rate && !video.seeking) video.currentTime = target;
    }
  }
}

const ready = () => videos.every((video) => video.readyState >= 2 || video.error);

// ---------------------------------------------------------------------------------------------------- what came of it

const shownOutcome = new Map(); // by place
async function showProgress() {
  const places = [$("progress"), $("outcome").querySelector(".inside")].filter((place) => place.checkVisibility());
  let found;
  try { found = await ask("progress"); } catch { return; }
  const state = JSON.stringify(found);
  for (const place of places) {
    if (shownOutcome.get(place) === state) continue; // films play on
    shownOutcome.set(place, state);
    place.replaceChildren(...showOutcome(found));
  }
}

function outcome() {
  open($("outcome"));
  showProgress();
}

// ---------------------------------------------------------------------------------------------------- keys, mouse, touch

const KEYS = {
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "tie", ArrowDown: "cannot_tell", " ": "pause", ",": "step_back", ".": "step_on",
  "+": "faster", "=": "faster", "-": "slower", Enter: "confirm", Backspace: "undo", r: "replay", z: "undo", a: "alike", b: "broken", u: "unclear", m: "flag",
};
const ANSWERS = new Set(["left", "right", "tie", "cannot_tell", "confirm", "alike", "broken", "unclear"]);

function letter(event) { // on a Cyrillic or Greek layout a key counts by where it lies
  if (/^[a-z]$/i.test(event.key)) return event.key.toLowerCase();
  return /^Key[A-Z]$/.test(event.code) && event.key.length === 1 && event.key > "\x7f" ? event.code.slice(3).toLowerCase() : event.key;
}

function choose(act, answers = true) {
  if (stage === "consent" || entering) return;
  if (session.introducing || session.resting || !answers) { act(); return; }
  if (flashing || session.question?.ticket !== shownTicket) return; // what is answered is what is on the screen
  const number = session.given.length + outbox.length, { question } = session;
  const cards = [...$("items").children];
  act();
  const last = session.commands.find((command) => command.save);
  if (last && question && session.given.length + outbox.length >= number) flash(cards, last.save.said);
}

function flash(cards, said) { // the question stays for a moment, so that one sees what one chose
  flashing = 1;
  const best = said.order?.[0] ?? (said.grade && cards.length === 2 && said.grade !== 4 ? [said.grade < 4 ? 0 : 1] : []);
  for (const card of cards) card.classList.add(best.includes(Number(card.dataset.place)) ? "chosen" : "other");
  setTimeout(() => { flashing = 0; }, 1000 * FLASH_SECONDS);
}

function open(dialog) {
  if (dialog.open) return;
  dialog.showModal();
  history.pushState({ dialog: dialog.id }, ""); // going back closes it
}
const close = () => { if (history.state?.dialog) history.back(); else document.querySelector("dialog[open]")?.close(); };
addEventListener("popstate", () => document.querySelector("dialog[open]")?.close());
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("cancel", (event) => { event.preventDefault(); close(); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog || event.target.closest(".close")) close(); });
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = letter(event);
  if (event.target.matches?.("textarea, input[type=text]")) return;
  if (document.querySelector("dialog[open]")) { if (["h", "i", "p", "?"].includes(key)) close(); return; }
  if (event.target === $("timeline") && key.startsWith("Arrow")) $("timeline").blur();
  if (key === "h" || key === "?" || key === "F1") open($("help"));
  else if (key === "i") instruct();
  else if (key === "c") contrast();
  else if (key === "n") campaign.comment();
  else if (key === "d" && texts) mark();
  else if (key === "f") fullScreen();
  else if (key === "p") outcome();
  else if (key === "g") gallery();
  else if (/^[1-9]$/.test(key)) { if (!event.repeat) choose(() => session.digit(Number(key))); }
  else if (KEYS[key]) {
    const action = KEYS[key];
    if ((key === "Enter" || key === " ") && event.target.closest("button, a, video.film")) return;
    if (event.repeat && (ANSWERS.has(action) || action === "undo" || action === "pause")) { event.preventDefault(); return; }
    choose(() => session.press(action), ANSWERS.has(action));
  } else { if (stage !== "consent" && !entering && session.introducing && key.length === 1) session.press("confirm"); return; }
  event.preventDefault();
});

function instruct() {
  const look = make("p", { textContent: settings.instruction || session.question?.instruction || "No instruction was given." });
  $("instruction").querySelector(".inside").replaceChildren(look, campaign.examples());
  open($("instruction"));
}
function mark() { // where two texts differ
  marked = !marked;
  session.tell(marked ? "What only one of them has is marked." : "Differences are no longer marked.");
}
function contrast() {
  document.body.classList.toggle("contrast");
  try { localStorage.setItem("prefrl contrast", document.body.classList.contains("contrast")); } catch { /* not kept */ }
}
function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen(); else document.documentElement.requestFullscreen?.().catch(() => {});
}

const campaign = new Campaign({
  session, settings, ask, clip, make, open, close, choose,
  agreed: () => { stage = "passed"; wake(); }, completion: () => completion, signOut: () => { signedOut = true; outbox.length = 0; },
});
const clicks = {
  begin: () => session.press("confirm"), play: () => session.press("pause"), back: () => session.press("step_back"),
  on: () => session.press("step_on"), replay: () => session.press("replay"), slower: () => session.press("slower"),
  faster: () => session.press("faster"), undo: () => session.press("undo"), helpButton: () => open($("help")),
  outcomeButton: outcome, galleryButton: gallery, instructionButton: instruct, contrastButton: contrast, fullButton: fullScreen,
  markButton: mark, peopleButton: () => location.assign("dashboard"),
};
for (const [id, act] of Object.entries(clicks)) $(id)?.addEventListener("click", (event) => { act(); event.currentTarget.blur(); });

$("timeline").addEventListener("input", () => {
  session.paused = true;
  const frame = Number($("timeline").value);
  session.position = frame / session.rate;
  session.seen = Math.max(session.seen, (frame + 1) / session.numFrames);
});

let drag = null;
$("items").addEventListener("pointerdown", (event) => {
  const card = event.target.closest(".card");
  if (!card || !session.question || event.button !== 0 || event.target.closest("button")) return;
  drag = { card, x: event.clientX, y: event.clientY, moved: false, pointer: event.pointerId, text: Boolean(event.target.closest(".text")) };
});
addEventListener("pointermove", (event) => {
  if (!drag || event.pointerId !== drag.pointer || $("items").dataset.kind !== "ranking") return;
  const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
  if (!drag.moved) {
    if (Math.hypot(dx, dy) < 8 || (drag.text && event.pointerType === "touch")) return;
    drag.moved = true;
    drag.card.classList.add("dragged");
  }
  drag.card.style.translate = `${dx}px ${dy}px`;
  const under = document.elementsFromPoint(event.clientX, event.clientY).map((e) => e.closest(".card")).find((card) => card && card !== drag.card);
  if (under && under !== drag.over) {
    const order = (card) => Number(card.style.order);
    const place = Number(drag.card.dataset.place);
    const was = drag.card.getBoundingClientRect();
    session.arrange(place, order(under));
    showOrder();
    const now = drag.card.getBoundingClientRect(); // it stays under the finger while its place moves
    drag.x += now.left - was.left;
    drag.y += now.top - was.top;
    drag.card.style.translate = `${event.clientX - drag.x}px ${event.clientY - drag.y}px`;
  }
  drag.over = under;
  event.preventDefault();
});
function dropCard(event) {
  if (!drag || event.pointerId !== drag.pointer) return;
  const { card, moved, x, y } = drag;
  drag = null;
  card.classList.remove("dragged");
  card.style.translate = "";
  if (moved || event.type === "pointercancel" || Math.hypot(event.clientX - x, event.clientY - y) > 12) return;
  const pairs = isPair($("items").dataset.kind); // which have buttons as well
  if (event.target.closest(".text") && (String(getSelection()) || (pairs && event.pointerType === "touch"))) return; // reading
  if (["rating", "strength"].includes($("items").dataset.kind)) return;
  if (card.isConnected) choose(() => session.click(Number(card.dataset.place)));
}
addEventListener("pointerup", dropCard);
addEventListener("pointercancel", dropCard);
$("items").addEventListener("click", (event) => {
  if (event.target.matches(".tie")) session.tieArranged(Number(event.target.closest(".card").dataset.place));
});

// ---------------------------------------------------------------------------------------------------- as it goes

async function enter(hash) { // whoever opens their link answers as themselves, whoever was signed in here before
  entering = true;
  const [token, ...more] = hash.split("&");
  const platform = Object.fromEntries([...new URLSearchParams(location.search), ...new URLSearchParams(more.join("&"))]);
  history.replaceState(null, "", location.pathname);
  try { await ask("enter", { ...platform, token }); } catch (error) { entering = signedOut = false; session.tell(error.message, 10); return; }
  location.reload();
}

function gallery() { location.assign("gallery"); }

async function answerAgain(row) { // an answer of one's own, of whatever session, that the gallery showed
  history.replaceState(null, "", location.pathname);
  session.begin();
  try {
    const { question } = await ask("again", { row });
    await load(question);
    if (session.question) session.ready.unshift(session.question);
    session.show(question);
    session.tell(`Answer ${row} is taken back: answer it again.`, 6);
  } catch (error) { session.tell(error.message, 10); }
}

let shownAt = 0, shownTicket;
function tick(now) {
  const seconds = Math.min(0.1, (now - before) / 1000);
  before = now;
  if (!flashing) {
    if (ready() && !document.querySelector("dialog[open]")) session.tick(seconds);
    if (now - shownAt > SHOW_EVERY || session.question?.ticket !== shownTicket) { // not at every frame: that takes much power
      [shownAt, shownTicket] = [now, session.question?.ticket];
      show();
    }
    follow();
  }
  carryOut();
  requestAnimationFrame(tick);
}

addEventListener("pagehide", () => {
  if (signedOut) return;
  const headers = { "content-type": "application/json", "x-prefrl": settings.csrf };
  fetch("release", { method: "POST", keepalive: true, headers, body: JSON.stringify({ page, held: held() }) }).catch(() => {});
  page = newName(); // should the browser come back to it
});
addEventListener("pageshow", (event) => { if (event.persisted) wake(); });
addEventListener("online", () => wake());
document.addEventListener("visibilitychange", () => { if (document.visibilityState === "visible") wake(); });

try { document.body.classList.toggle("contrast", localStorage.getItem("prefrl contrast") === "true"); } catch { /* as it is */ }
$("peopleButton")?.toggleAttribute("hidden", !settings.owner);
window.prefrl = { session, Session, outbox };
session.introducing = settings.stage !== "done";
if (location.hash.length > 20) enter(location.hash.slice(1));
else {
  takeUp();
  if (/^#again=\d+$/.test(location.hash)) answerAgain(Number(location.hash.slice(7))).then(bring);
  else bring();
}
addEventListener("hashchange", () => { if (location.hash.length > 20) enter(location.hash.slice(1)); });
setInterval(() => { if (!$("progress").hidden || $("outcome").open) showProgress(); }, 10000);
requestAnimationFrame(tick);
