// One picture after the other: yes, no, or cannot tell. The server chooses the pictures and holds the answers.

import { call } from "/static/api.js";
import { $, h, plural, say } from "/static/dom.js";

const SMALL = 128; // pictures up to this side are shown with their pixels
let state = null;
let answers = {}; // to questions about this picture so far
let busy = false;

const current = () => state.next[0];
const question = () => current().questions[Object.keys(answers).length];

function draw() {
  const done = state.next.length === 0;
  $("who").textContent = state.by === "me" ? "" : state.by;
  $("progress-bar").hidden = state.left === null;
  $("progress-bar").value = state.answered / Math.max(1, state.answered + state.left);
  $("progress-text").textContent = state.left ? `${plural(state.answered, "picture")}, ${state.left} to go` : plural(state.answered, "picture");
  $("work").hidden = done;
  $("done").hidden = !done;
  $("undo").disabled = $("undo-done").disabled = !Object.keys(answers).length && !state.answered;
  if (done) { $("summary").textContent = state.summary; return; }
  const source = `/api/pictures/${current().index}`;
  if ($("picture").getAttribute("src") !== source) $("picture").src = source;
  const whole = question() === "query";
  $("question").replaceChildren(whole ? "Does it satisfy: " : "Is it true: ", h("strong", {}, whole ? current().query : question()), "?");
  for (const later of state.next.slice(1)) new Image().src = `/api/pictures/${later.index}`;
}

// Ask the server; a failure is shown, and the state is read again, because another tab may have answered.
async function ask(method, path, body) {
  busy = true;
  try {
    state = await call(method, path, body);
    $("failure").hidden = true;
  } catch (problem) {
    $("failure").textContent = problem.drawing ?? String(problem);
    $("failure").hidden = false;
    state = await call("GET", "/api/state").catch(() => state);
  } finally {
    busy = false;
  }
  answers = {};
  if (state) draw();
}

// `call` leaves out fields that are null: an answer that is missing there is one that nobody can tell.
async function answer(value) {
  if (busy || !state?.next.length) return;
  const asked = question();
  answers[asked] = value;
  if (question()) draw();
  else await ask("POST", "/api/answers", { key: current().key, answers });
  say(state.next.length ? `${asked}: ${value ?? "cannot tell"}. Next` : "The audit is finished");
}

async function back() {
  if (busy || !state) return;
  const given = Object.keys(answers);
  if (given.length) { delete answers[given.at(-1)]; draw(); } else if (state.answered) await ask("DELETE", "/api/answers");
}

const KEYS = { y: () => answer(true), n: () => answer(false), "?": () => answer(null), u: back, Backspace: back };

document.addEventListener("keydown", (event) => {
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act();
});
$("picture").addEventListener("load", () => $("picture").classList.toggle("small", $("picture").naturalWidth <= SMALL));
for (const [id, key] of [["yes", "y"], ["no", "n"], ["unclear", "?"], ["undo", "u"], ["undo-done", "u"]]) $(id).addEventListener("click", KEYS[key]);
await ask("GET", "/api/state");
