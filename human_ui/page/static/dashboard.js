// The owner's page: everybody's figures, what they disagree about, what they remarked; settling and pinning.
import { textOf } from "./text.js";

const settings = JSON.parse(document.getElementById("settings").textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...inside);
  return element;
};

async function ask(path, content) {
  const options = content === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json", "x-prefrl": settings.csrf }, body: JSON.stringify(content),
  };
  const answer = await fetch(path, options);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

async function attempt(work) {
  try { await work(); $("told").textContent = ""; } catch (error) { $("told").textContent = error.message; }
}

const share = (one) => (one ? `${Math.round(100 * one.share)} % (${Math.round(100 * one.low)}–${Math.round(100 * one.high)}, of ${one.num})` : "–");
const minutes = (one) => (one.total_seconds ? `${(one.total_seconds / 60).toFixed(1)} min, ${one.median_seconds.toFixed(1)} s each` : "–");
const COLUMNS = [
  ["Name", (one) => one.name], ["Answers", (one) => (one.most_answers ? `${one.num_answers} of ${one.most_answers}` : String(one.num_answers))], ["Time", minutes],
  ["Same again", (one) => share(one.consistency)], ["Same as others", (one) => share(one.agreement)], ["Known", (one) => share(one.gold)],
  ["Chose left", (one) => share(one.chose_left)], ["To look at", (one) => one.warnings.join("; ") || "–"],
  ["Consent", (one) => one.consent ?? "–"], ["Done", (one) => (one.completed_at ? new Date(1000 * one.completed_at).toLocaleString() : "–")],
  ["Link", (one) => (one.links ? (one.role === "study" ? "study" : "valid") : one.revoked ? "revoked" : one.participant ? "study" : "–")],
];

async function showPeople() {
  const { people, alpha, standing } = await ask("people");
  const head = make("tr", {}, ...COLUMNS.map(([name]) => make("th", { textContent: name })));
  const rows = people.map((one) => make("tr", { className: one.warnings.length ? "warned" : "" }, ...COLUMNS.map(([, cell]) => make("td", { textContent: cell(one) }))));
  const told = [`${standing.answered} answers${standing.wanted ? ` of ${standing.wanted}` : ""}, ${standing.left} left.`];
  if (alpha !== null) told.push(`Krippendorff's alpha between all: ${alpha.toFixed(2)}.`);
  if (standing.training) told.push(standing.training);
  $("people").replaceChildren(make("p", { textContent: told.join(" ") }), make("table", {}, head, ...rows));
}

function itemOf(question, item, number) {
  let what;
  if (item.clip) what = make("video", { src: item.clip, muted: true, loop: true, autoplay: true, playsInline: true, controls: true });
  else if (item.text !== undefined) what = textOf(item, false);
  else what = make("p", { className: "problem", textContent: item.problem });
  const pin = (good, label) => {
    const button = make("button", { type: "button", className: "quiet small", textContent: label });
    button.addEventListener("click", () => attempt(async () => {
      const note = good === null ? "" : prompt(`A few words on this ${good ? "good" : "bad"} example (may be empty):`, "");
      if (note === null) return;
      const { examples } = await ask("pin", { ticket: question.ticket, item: number, good, note });
      button.textContent = `${label} ✓ (${examples} in all)`;
    }));
    return button;
  };
  const buttons = make("div", { className: "line" }, make("b", { textContent: String(number + 1) }), pin(true, "Good example"), pin(false, "Bad example"), pin(null, "Neither"));
  return make("figure", {}, what, buttons);
}

function caseOf(question, settles) {
  const settled = question.answers.findLast((one) => one.adjudicates);
  const act = (row) => () => attempt(async () => {
    await ask("adjudicate", { ticket: question.ticket, row });
    await refresh();
  });
  const said = question.answers.map((one) => {
    const marks = [one.flagged ? "flagged" : "", one.reason ? `reason: ${one.reason}` : "", one.comment ? `“${one.comment}”` : ""].filter(Boolean);
    const line = make("p", { className: "said" }, make("b", { textContent: one.annotator }), `: ${one.said}${one.adjudicates ? " (settled)" : ""}, ${one.seconds.toFixed(1)} s`,
      marks.length ? make("span", { className: "told", textContent: `  ${marks.join(", ")}` }) : "");
    if (settles && !one.adjudicates) {
      const button = make("button", { type: "button", className: "small quiet", textContent: "is right" });
      button.addEventListener("click", act(one.row));
      line.append(" ", button);
    }
    return line;
  });
  if (settles) {
    const nobody = make("button", { type: "button", className: "small quiet", textContent: "Nobody can tell" });
    nobody.addEventListener("click", act(null));
    said.push(nobody);
  }
  return make("article", { className: settled ? "settled" : "" },
    question.prompt === null ? "" : make("p", { className: "prompt", textContent: question.prompt }),
    make("div", { className: "examples" }, ...question.items.map((item, number) => itemOf(question, item, number))),
    ...said, make("p", { className: "pale", textContent: `${question.kind} ${question.query}` }));
}

async function refresh() {
  await showPeople();
  const [differ, remarked] = await Promise.all([ask("disagreements"), ask("remarks")]);
  $("numDisagreements").textContent = `(${differ.num})`;
  $("disagreements").replaceChildren(...differ.questions.map((one) => caseOf(one, true)));
  $("numRemarks").textContent = `(${remarked.num})`;
  $("remarked").replaceChildren(...remarked.questions.map((one) => caseOf(one, false)));
}

await attempt(refresh);
