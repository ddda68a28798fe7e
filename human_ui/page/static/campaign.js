// What surrounds the questions: consent and withdrawal, reasons, flags, notes and edits, examples, and the way back at the end.
import { textOf } from "./text.js";

const REASONS = [["alike", "Too alike", "A"], ["broken", "Cannot be seen", "B"], ["unclear", "Unclear what for", "U"]];
const $ = (id) => document.getElementById(id);

export class Campaign {
  constructor(page) {
    Object.assign(this, page);
    this.withdrawn = false;
    this.pinned = [];
    this.shown = "";
    const { make } = this;
    const button = (label, key, act) => {
      const made = make("button", { type: "button", className: "quiet small" }, make("span", { textContent: label }), make("kbd", { textContent: key }));
      made.addEventListener("click", () => { act(); made.blur(); });
      return made;
    };
    this.flag = button("Flag", "M", () => this.session.press("flag"));
    this.note = button("Note", "N", () => this.comment());
    this.marks = button("Differences", "D", () => $("markButton").click());
    $("remarks").replaceChildren(
      ...REASONS.map(([reason, label, key]) => button(label, key, () => this.choose(() => this.session.press(reason)))), this.flag, this.note, this.marks,
    );
    $("agree").addEventListener("click", () => this.agree());
    $("saveComment").addEventListener("click", () => this.saveComment());
    $("saveEdit").addEventListener("click", () => this.saveEdit());
    $("withdrawButton").addEventListener("click", () => { this.close(); setTimeout(() => this.open($("withdraw")), 50); });
    $("withdrawSurely").addEventListener("click", () => this.withdraw());
    $("withdrawButton").hidden = this.settings.owner;
    if (this.settings.examples) this.bringExamples();
  }

  show(screen, question, texts) {
    $("remarks").hidden = screen !== "question";
    this.marks.hidden = !texts || question?.items.length !== 2;
    this.flag.classList.toggle("on", this.session.flagged);
    this.note.classList.toggle("on", Boolean(this.session.comment));
    $("agree").hidden = screen !== "consent";
    const completion = screen === "end" ? this.completion() : null;
    const state = JSON.stringify([screen, completion, this.pinned.length]);
    if (state === this.shown) return;
    this.shown = state;
    const { make } = this;
    const parts = [];
    if (screen === "introduction") parts.push(this.examples());
    if (completion) {
      parts.push(make("p", {}, "Your completion code: ", make("b", { textContent: completion.code, id: "code" })));
      if (completion.url) parts.push(make("p", {}, make("a", { href: completion.url, rel: "noreferrer", className: "button first", textContent: "Go back and complete" })));
    }
    $("beside").replaceChildren(...parts);
    $("beside").hidden = !parts.length;
  }

  async agree() {
    try { await this.ask("consent", { version: this.settings.consent.version }); this.agreed(); }
    catch (error) { if (error.status === 409) location.reload(); else this.session.tell(error.message, 8); }
  }

  async withdraw() {
    try { await this.ask("withdraw", {}); } catch (error) { this.close(); this.session.tell(error.message, 8); return; }
    this.withdrawn = true;
    this.session.question = null;
    this.session.ready = [];
    try { for (const key of Object.keys(localStorage)) if (key.startsWith("prefrl ")) localStorage.removeItem(key); } catch { /* none here */ }
    this.signOut();
    this.close();
  }

  comment() {
    if (!this.session.question || this.session.introducing || this.session.resting) return;
    this.open($("comment"));
    $("commentText").value = this.session.comment;
    $("commentText").focus();
  }

  saveComment() {
    this.session.comment = $("commentText").value.trim();
    this.session.tell(this.session.comment ? "Your note goes with the answer." : "No note.");
    this.close();
  }

  editButton(place) {
    const made = this.make("button", { type: "button", className: "quiet small editing", textContent: "Edit", title: "Write how it should read" });
    made.addEventListener("click", (event) => {
      event.stopPropagation();
      this.edited = { ticket: this.session.question.ticket, place };
      this.open($("edit"));
      $("editText").value = this.session.question.items[place].text;
      $("editComment").value = "";
      $("editText").focus();
    });
    return made;
  }

  async saveEdit() {
    try {
      await this.ask("edit", { ...this.edited, text: $("editText").value, comment: $("editComment").value.trim() });
      this.session.tell("Your text is in the record. Now say which one is better, as they stand.", 6);
      this.close();
    } catch (error) { $("editTold").textContent = error.message; return; }
    $("editTold").textContent = "";
  }

  async bringExamples() {
    try { this.pinned = (await this.ask("examples")).examples; } catch { return; }
    for (const one of this.pinned) if (one.clip) one.address = this.clip(one.clip);
  }

  examples() { // good and bad ones, as the owner pinned them
    const { make } = this;
    const shown = this.pinned.map((one) => {
      let what;
      if (one.clip) {
        what = make("video", { muted: true, loop: true, playsInline: true, autoplay: true });
        one.address.then((address) => { what.src = address; }, () => what.replaceWith("Its clip could not be fetched."));
      } else what = one.text === undefined ? make("p", { textContent: one.problem }) : textOf(one, false);
      const caption = make("figcaption", {}, make("b", { textContent: one.good ? "Good" : "Bad" }), one.note ? `: ${one.note}` : "");
      return make("figure", { className: one.good ? "good" : "bad" }, what, caption);
    });
    return make("div", { className: "examples" }, ...shown);
  }
}
