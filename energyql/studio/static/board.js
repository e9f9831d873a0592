// Rows of pictures side by side: two queries, semantics or samplers on one seed, truth tables, traversals, galleries.

import { Runner, working } from "./api.js";
import { shown } from "./clauses.js";
import { $, badge, button, h, mark, plural } from "./dom.js";
import { code } from "./paper.js";

const PATHS = { table: "/api/truth-tables", traversal: "/api/traversals", gallery: "/api/galleries" };
const NAMES = { compare: "Side by side", table: "Truth table", traversal: "Traversal", gallery: "Gallery" };

export class Board {
  // `actions`: language(), close(), draw(query, settings) puts a row on the wall.
  constructor(store, actions) {
    Object.assign(this, { store, actions, runner: new Runner(), key: "" });
    store.on(["board"], ({ board }) => this.paint(board));
  }

  // Draw the rows of a place, unless they are shown already. `wanted` is {kind, rows} or {kind, body}.
  async show(wanted) {
    const key = JSON.stringify(wanted);
    if (key === this.key && this.store.state.board) return;
    this.key = key;
    const board = { ...wanted, lines: [], job: null, failure: null, busy: true };
    this.store.set({ board });
    try {
      if (wanted.kind === "compare") await this.compare(board);
      else await this.runner.run(PATHS[wanted.kind], wanted.body, (job, fresh) => this.take(board, job, fresh));
    } catch (problem) {
      board.failure = problem;
    }
    board.busy = false;
    if (this.store.state.board === board) this.store.touched("board");
  }

  hide() {
    if (!this.store.state.board) return;
    this.key = "";
    this.runner.forget();
    this.store.set({ board: null });
  }

  // One drawing after the other, all from the same seed. A refused query gets a row with the reason.
  async compare(board) {
    board.lines = board.rows.map((row) => ({ ...row, pictures: [], summary: "", reason: "" }));
    for (const line of board.lines) {
      try {
        const current = await this.runner.run("/api/jobs", { ...line.settings, query: line.query }, (job, fresh) => {
          line.pictures.push(...fresh);
          line.summary = working(job) ? job.stage : job.summary;
          if (job.problem) line.reason = job.problem.message;
          this.store.touched("board");
        });
        if (!current) return;
      } catch (problem) {
        line.reason = problem.message;
        this.store.touched("board");
      }
    }
  }

  take(board, job, fresh) {
    board.job = job;
    for (const picture of fresh) (board.lines[picture.row] ??= { pictures: [], query: picture.query, label: "", summary: "", reason: "" }).pictures.push(picture);
    job.rows.forEach((row, place) => { board.lines[place] = { pictures: [], label: "", ...board.lines[place], ...row }; });
    if (board.kind === "traversal") board.lines.forEach((line, place) => Object.assign(line, { query: "", label: `Path ${place + 1}` }));
    board.failure = job.problem;
    this.store.touched("board");
  }

  paint(board) {
    $("board").hidden = !board;
    document.querySelector(".pictures").classList.toggle("compared", Boolean(board));
    if (!board) { $("board").replaceChildren(); return; }
    const { kind, job, busy, failure, lines } = board;
    const parts = () => [...$("board").querySelectorAll("button, a, ul")];
    const focused = parts().indexOf(document.activeElement);
    const scrolled = parts().map((part) => part.scrollLeft);
    const done = job?.state === "done";
    const title = kind === "traversal" ? [letter(0), " ", code(board.body.start, this.actions.language()), " to ", letter(1), " ", code(board.body.end, this.actions.language())] : [];
    $("board").replaceChildren(
      h("div", { class: "board-head" }, h("h2", { id: "board-name" }, NAMES[kind]), h("span", { class: "faint" }, (board.body ?? board.rows[0].settings).model), h("span", { class: "faint", role: "status" }, busy ? progress(job) : ""), h("span", { class: "gap" }),
        done ? h("a", { class: "plain", href: `/api/jobs/${job.id}/gallery.html`, download: "energyql-gallery.html" }, "Download as a page") : null,
        button("Back to the pictures", this.actions.close)),
      title.length ? h("p", { class: "ends" }, title) : "",
      failure ? h("div", { class: "failure", role: "alert" }, [failure.message, failure.hint].filter(Boolean).join(". ")) : "",
      ...lines.filter(Boolean).map((line) => this.line(board, line)),
    );
    // Keep the focus and the scroll position while pictures arrive.
    parts().forEach((part, place) => { part.scrollLeft = scrolled[place] ?? 0; });
    parts()[focused]?.focus({ preventScroll: true });
  }

  line(board, { label, query, pictures, summary, reason, settings }) {
    const whole = settings ?? { ...this.store.state.run.settings, ...board.body, n: board.body?.n ?? pictures.length };
    const open = query && !reason ? button("On the wall", () => this.actions.draw(query, whole)) : null;
    return h(
      "section",
      { class: "board-row", "aria-label": [label, query].filter(Boolean).join(": ") },
      h("div", { class: "board-head" }, label ? h("strong", {}, label) : null, query ? code(query, this.actions.language()) : null, h("span", { class: "faint" }, summary), h("span", { class: "gap" }), open),
      reason ? h("p", { class: "faint" }, `No pictures: ${reason}`) : h("ul", { class: `strip-row ${board.kind}`, role: "list", tabindex: 0, "aria-label": "Pictures" }, pictures.map((picture) => tile(picture, board.kind === "traversal"))),
    );
  }
}

// A picture between two queries may satisfy neither, which is no failure: show the probabilities of both.
function tile(picture, between) {
  const says = between ? picture.clauses.map(({ text, probability }, end) => h("span", { class: "end", title: text }, letter(end), probability === null ? "?" : probability.toFixed(2)))
    : [badge(picture.satisfied), h("span", {}, shown(picture))];
  return h("li", { class: between ? "" : mark(picture.satisfied) },
    h("span", { class: "frame" }, h("img", { src: picture.image, alt: picture.alt, width: picture.width, height: picture.height, class: picture.width <= 64 ? "small" : "" })),
    h("span", { class: "below" }, says, picture.doubtful ? h("span", { class: "doubt" }, "doubtful") : null));
}

const letter = (end) => h("span", { class: `letter ${"ab"[end]}` }, "AB"[end]);

function progress(job) {
  if (!job) return "Drawing";
  return job.state === "waiting" ? `Waiting, ${plural(job.place, "request")} before` : `${Math.round(100 * job.fraction)} %`;
}
