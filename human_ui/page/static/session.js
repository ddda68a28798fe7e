// The session of a person who answers, as human_ui/session.py has it: a pure object, driven by events, that knows nothing of
// pages or networks. Whoever owns it calls press, digit, click, arrange, tick and offer, draws what it says, and carries out
// what takeCommands gives. Both are held to the same cases by tests/ui/test_page.py.

export const SPEEDS = [0.1, 0.25, 0.5, 1, 1.5, 2, 4];
export const REST = 0.4; // seconds for which the last frame stands before the clips begin again
const NOTICE_SECONDS = 4;
const REASONS = ["alike", "broken", "unclear"];

export class Session {
  constructor({ mustSee = 0, breakAfter = 0, now = () => Date.now() / 1000 } = {}) {
    this.mustSee = mustSee;
    this.breakAfter = breakAfter; // seconds of answering after which a rest is proposed; 0: never
    this.now = now;
    this.question = null;
    this.given = []; // by this person in this session, those taken back left out
    this.ready = [];
    this.ranked = []; // places, best first; those in one list are tied
    this.arranged = null; // the same of all places, while they are dragged about
    this.paused = false;
    this.speed = 1;
    this.position = 0; // seconds into the clips
    this.seen = 0; // share of the clips that has been shown
    this.notice = "";
    this.introducing = true;
    this.awaited = null; // reply that was taken back and whose question comes again
    this.moreUndos = 0;
    this.tieNext = false;
    this.noticeLeft = 0;
    this.flagged = false; // the question that is shown
    this.comment = ""; // on it
    this.resting = false;
    this.restedAt = now();
    this.shownAt = now();
    this.commands = [];
  }

  get numFrames() { return this.question ? Math.max(1, ...this.question.items.map((item) => item.frames || 1)) : 1; }
  get rate() { return this.question?.items.find((item) => item.rate)?.rate || 30; }
  get length() { return this.numFrames / this.rate; }
  get frame() { return Math.min(Math.floor(this.position * this.rate + 1e-6), this.numFrames - 1); }

  tick(seconds) {
    this.noticeLeft -= seconds;
    if (this.noticeLeft <= 0) this.notice = "";
    if (!this.question || this.introducing || this.resting || this.paused || this.numFrames < 2) return;
    this.position += seconds * this.speed;
    this.seen = Math.max(this.seen, Math.min(1, this.position / this.length));
    if (this.position >= this.length + REST * this.speed) this.position = 0;
  }

  offer(question) {
    if (this.awaited !== null && question.again === this.awaited) {
      this.awaited = null;
      if (this.question) this.ready.unshift(this.question);
      this.show(question);
      if (this.moreUndos) { this.moreUndos -= 1; this.undo(); }
      return;
    }
    this.ready.push(question);
    if (!this.question && this.awaited === null) this.next();
  }

  tell(notice, seconds = NOTICE_SECONDS) { this.notice = notice; this.noticeLeft = seconds; }
  takeCommands() { const commands = this.commands; this.commands = []; return commands; }

  press(action) {
    if (this.introducing) this.begin();
    else if (this.resting) this.goOn();
    else if (action === "undo") this.undo();
    else if (action === "faster" || action === "slower") this.changeSpeed(action === "faster" ? 1 : -1);
    else if (!this.question) {
      if (["left", "right", "tie", "cannot_tell", ...REASONS].includes(action))
        this.tell("Nothing is shown yet: that key was not counted.");
    } else if (action === "pause") this.paused = !this.paused;
    else if (action === "replay") { this.position = 0; this.paused = false; }
    else if (action === "step_back" || action === "step_on") this.step(action === "step_on" ? 1 : -1);
    else if (action === "flag") {
      this.flagged = !this.flagged;
      this.tell(this.flagged ? "Flagged: whoever asked will look at it." : "No longer flagged.");
    } else if (REASONS.includes(action)) this.give({ reason: action });
    else this.judge(action);
  }

  digit(number) {
    const { question } = this;
    if (this.introducing) this.begin();
    else if (this.resting) this.goOn();
    else if (!question) this.tell("Nothing is shown yet: that key was not counted.");
    else if (!question.graded) this.choose([number - 1]);
    else if (number <= question.scale) this.give({ grade: number });
    else this.tell(`The scale goes from 1 to ${question.scale}.`);
  }

  click(place) { this.digit(place + 1); }

  // Put an item at another place of the order, which counts when it is confirmed.
  arrange(place, at) {
    this.arranged ??= [...this.ranked.flat(), ...this.question.items.keys()].filter((p, i, all) => all.indexOf(p) === i)
      .map((p) => ({ place: p, tied: false }));
    const from = this.arranged.findIndex((one) => one.place === place);
    const [moved] = this.arranged.splice(from, 1);
    this.arranged.splice(at, 0, { ...moved, tied: false });
    this.arranged[0].tied = false;
    this.ranked = [];
  }

  // Say that an item of the order is as good as the one before, or no longer.
  tieArranged(place) {
    const at = this.arranged?.findIndex((one) => one.place === place) ?? 0;
    if (at > 0) this.arranged[at].tied = !this.arranged[at].tied;
  }

  begin() { this.introducing = false; this.shownAt = this.restedAt = this.now(); this.position = 0; }
  goOn() { this.resting = false; this.shownAt = this.restedAt = this.now(); this.position = 0; }
  next() { this.question = null; if (this.awaited === null && this.ready.length) this.show(this.ready.shift()); }

  show(question) {
    Object.assign(this, { question, position: 0, seen: 0, paused: false, ranked: [], arranged: null, tieNext: false });
    Object.assign(this, { flagged: false, comment: "" });
    if (this.numFrames < 2) this.seen = 1; // what does not move is seen at once
    this.shownAt = this.now();
    if (this.breakAfter && this.shownAt - this.restedAt >= this.breakAfter) this.resting = true;
  }

  changeSpeed(by) {
    this.speed = SPEEDS[Math.min(Math.max(SPEEDS.indexOf(this.speed) + by, 0), SPEEDS.length - 1)];
    this.tell(`Speed × ${this.speed}`);
  }

  step(by) {
    this.paused = true;
    const frame = (this.frame + by + this.numFrames) % this.numFrames;
    this.position = frame / this.rate;
    this.seen = Math.max(this.seen, (frame + 1) / this.numFrames);
  }

  judge(action) {
    const { question } = this;
    const arrows = { left: [0], right: [1], tie: [0, 1] };
    if (action === "cannot_tell") this.give({});
    else if (question.items.length === 2 && arrows[action]) this.choose(arrows[action]);
    else if (action === "tie" && this.ranked.length) {
      this.tieNext = true;
      this.tell("The next number ties with the one before.");
    } else if (action === "confirm" && this.arranged) {
      const groups = [];
      for (const { place, tied } of this.arranged) if (tied) groups.at(-1).push(place); else groups.push([place]);
      this.give({ order: groups });
    } else if (action !== "confirm") this.tell(question.hint);
  }

  choose(places) { // the next best, or several that are equally good
    const num = this.question.items.length;
    if (this.refused()) return;
    if (places.at(-1) >= num) {
      this.tell(num === 2 ? "There are two to choose from: left or right arrow." : `There are ${num} of them.`);
      return;
    }
    if (places.some((place) => this.ranked.flat().includes(place))) {
      this.tell(`${places[0] + 1} is ranked already; Z takes the last one back.`);
      return;
    }
    this.arranged = null;
    if (this.tieNext) this.ranked.at(-1).push(...places); else this.ranked.push([...places]);
    this.tieNext = false;
    if (num === 2 || this.ranked.flat().length === num) this.give({ order: this.ranked });
  }

  refused() { // whether a person cannot judge what cannot be shown, or was not seen; they are told
    if (this.question.items.some((item) => item.problem))
      this.tell("One of these cannot be shown: press the down arrow (can't tell) to go on.");
    else if (this.numFrames > 1 && this.seen < this.mustSee) this.tell("Look at the clips first: that was not counted.");
    else return false;
    return true;
  }

  unrank() {
    this.ranked.at(-1).pop();
    if (!this.ranked.at(-1).length) this.ranked.pop();
    this.tieNext = false;
  }

  give(said) {
    const { question } = this;
    if (("order" in said || "grade" in said) && this.refused()) return;
    const answeredAt = this.now();
    if (this.flagged) said = { ...said, flagged: true };
    if (this.comment) said = { ...said, comment: this.comment };
    const reply = { question, said, seconds: Math.max(0, answeredAt - this.shownAt), answeredAt, seen: this.seen };
    if (!question.practice) this.given.push(reply);
    this.commands.push({ save: reply });
    this.tell(question.practice ? "" : `Answer ${this.given.length} is taken; Z takes it back.`, 1.5);
    this.next();
  }

  undo() {
    if (this.arranged) { this.arranged = null; return; }
    if (this.ranked.length && this.question) { this.unrank(); return; }
    if (this.awaited !== null) { this.moreUndos = Math.min(this.moreUndos + 1, this.given.length); return; }
    if (!this.given.length) { this.tell("There is nothing to take back in this session."); return; }
    const reply = this.given.pop();
    if (this.question) { this.ready.unshift(this.question); this.question = null; }
    this.awaited = reply.question.ticket;
    this.commands.push({ takeBack: reply });
    this.tell("Taken back: answer it again.");
  }
}
