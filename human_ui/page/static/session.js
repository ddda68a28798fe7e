// The session of a person who answers, as human_ui/session.py has it: a pure object, driven by events, that knows nothing of
// pages or networks. Whoever owns it calls press, digit, click, arrange, tick and offer, draws what it says, and carries out
// what takeCommands gives. Both are held to the same cases by tests/ui/test_page.py.

export const SPEEDS = [0.1, 0.25, 0.5, 1, 1.5, 2, 4];
export const REST = 0.4; // seconds for which the last frame stands before the clips begin again
const NOTICE_SECONDS = 4;

export class Session {
  constructor({ mustSee = 0, now = () => Date.now() / 1000 } = {}) {
    this.mustSee = mustSee;
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
    if (!this.question || this.introducing || this.paused || this.numFrames < 2) return;
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
    else if (action === "undo") this.undo();
    else if (action === "faster" || action === "slower") this.changeSpeed(action === "faster" ? 1 : -1);
    else if (!this.question) {
      if (["left", "right", "tie", "cannot_tell"].includes(action))
        this.tell("Nothing is shown yet: that key was not counted.");
    } else if (action === "pause") this.paused = !this.paused;
    else if (action === "replay") { this.position = 0; this.paused = false; }
    else if (action === "step_back" || action === "step_on") this.step(action === "step_on" ? 1 : -1);
    else this.judge(action);
  }

  digit(number) {
    const question = this.question;
    if (this.introducing) this.begin();
    else if (!question) this.tell("Nothing is shown yet: that key was not counted.");
    else if (question.kind === "rating") {
      if (number <= question.scale) this.give({ grade: number });
      else this.tell(`The scale goes from 1 to ${question.scale}.`);
    } else if (question.kind !== "comparison") this.rank(number - 1);
    else if (number <= 2) this.press(number === 1 ? "left" : "right");
    else this.tell("There are two to choose from: left or right arrow.");
  }

  click(place) {
    if (!this.question || this.question.kind !== "comparison" || place < 2) this.digit(place + 1);
  }

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

  begin() { this.introducing = false; this.shownAt = this.now(); this.position = 0; }
  next() { this.question = null; if (this.awaited === null && this.ready.length) this.show(this.ready.shift()); }

  show(question) {
    Object.assign(this, { question, position: 0, seen: 0, paused: false, ranked: [], arranged: null, tieNext: false });
    this.shownAt = this.now();
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
    const { kind, scale } = this.question;
    if (action === "cannot_tell") this.give({});
    else if (kind === "comparison") {
      if (action === "tie") this.give({ order: [[0, 1]] });
      else if (action === "left") this.give({ order: [[0], [1]] });
      else if (action === "right") this.give({ order: [[1], [0]] });
    } else if (kind === "rating") {
      if (action !== "confirm") this.tell(`Press a number from 1 (worst) to ${scale} (best).`);
    } else if (action === "confirm" && this.arranged) {
      const groups = [];
      for (const { place, tied } of this.arranged) if (tied) groups.at(-1).push(place); else groups.push([place]);
      this.give({ order: groups });
    } else if (action === "tie") {
      if (!this.ranked.length)
        this.tell("Press the number of the best one first; up, then a number, ties it with the one before.");
      else { this.tieNext = true; this.tell("The next number ties with the one before."); }
    } else this.tell("Press the numbers from the best to the worst, or drag them into order.");
  }

  rank(place) {
    const num = this.question.items.length;
    if (place >= num) this.tell(`There are ${num} to rank.`);
    else if (this.ranked.flat().includes(place)) this.tell(`${place + 1} is ranked already; Z takes the last one back.`);
    else {
      this.arranged = null;
      if (this.tieNext) this.ranked.at(-1).push(place); else this.ranked.push([place]);
      this.tieNext = false;
      if (this.ranked.flat().length === num && !this.give({ order: this.ranked })) this.unrank();
    }
  }

  unrank() {
    this.ranked.at(-1).pop();
    if (!this.ranked.at(-1).length) this.ranked.pop();
    this.tieNext = false;
  }

  give(said) {
    const { question } = this;
    const says = "order" in said || "grade" in said;
    if (says && question.items.some((item) => item.problem)) {
      this.tell("One of these cannot be shown: press the down arrow (can't tell) to go on.");
      return false;
    }
    if (says && this.numFrames > 1 && this.seen < this.mustSee) {
      this.tell("Look at the clips first: that was not counted.");
      return false;
    }
    const answeredAt = this.now();
    const reply = { question, said, seconds: Math.max(0, answeredAt - this.shownAt), answeredAt, seen: this.seen };
    if (!question.practice) this.given.push(reply);
    this.commands.push({ save: reply });
    this.tell(question.practice ? "" : `Answer ${this.given.length} is taken; Z takes it back.`, 1.5);
    this.next();
    return true;
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
