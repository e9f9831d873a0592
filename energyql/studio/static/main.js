// The page: starts everything, and keeps query, settings, pictures and address together.

import { call } from "./api.js";
import { Board } from "./board.js";
import { Builder } from "./build.js";
import { Chosen } from "./chosen.js";
import { Compare } from "./compare.js";
import { Detail } from "./detail.js";
import { $, copyFrom, drawing, h, plural, say } from "./dom.js";
import { startDownloads } from "./downloads.js";
import { editOf } from "./edits.js";
import { Files, placeOf } from "./files.js";
import { showHistory } from "./history.js";
import { startKeys } from "./keys.js";
import { Language } from "./language.js";
import { Navigation } from "./navigate.js";
import { followBar, Panels, startSize } from "./panels.js";
import { Past } from "./past.js";
import { asking, QueryBox } from "./querybox.js";
import { reportRuns } from "./report.js";
import { Runs } from "./runs.js";
import { SettingsForm } from "./settings.js";
import { keyOf, linkTo } from "./share.js";
import { Store } from "./store.js";
import { startTheme } from "./theme.js";
import { Tray } from "./tray.js";
import { Visits } from "./visits.js";
import { Wall } from "./wall.js";

const store = new Store({ run: null, open: null, selected: new Set(), failure: null, board: null, panel: "", past: [], tray: [] });
const visits = new Visits(store);
let settings, language, box, builder, panels, past, runs, navigation, wall, detail, tray, board, info;
const others = []; // parts of the page that no other part uses

// The query in the box and the settings, drawn or not.
const written = () => ({ query: box.text.trim(), settings: settings.read(), fingerprint: settings.model.fingerprint });

function modelOf(name) {
  const model = info.models.find((each) => each.name === name);
  return { model, language: new Language(info.keywords, model.attributes, model.words, model.texts) };
}

function showCheck(check) {
  $("draw").disabled = check !== null && !check.ok;
  $("circuit").classList.toggle("old", !check?.ok);
  builder?.show();
  navigation?.typed();
  if (!check?.ok) return;
  $("circuit-name").textContent = check.caption;
  const svg = drawing(check.drawing);
  svg.style.maxWidth = `${svg.getAttribute("width")}px`;
  $("circuit").replaceChildren(svg);
  $("explanation").textContent = check.explanation;
}

// Draw a place; it becomes the address when the studio has accepted it.
async function drawPlace(asked) {
  try {
    await runs.draw(asked, () => {
      panels.makeWay();
      navigation.dropDraft();
      const first = !navigation.here.place;
      if (first || keyOf(navigation.here.place) === keyOf(asked)) navigation.replace(asked);
      else navigation.push(asked);
      store.set({ open: null });
      board.hide();
    });
  } catch (problem) {
    if (!box.refuse(box.text, problem)) store.set({ failure: problem });
  }
}

async function draw() {
  if (!box.text.trim() || box.broken) { box.focus(); return; }
  if (!settings.valid) { panels.open("settings"); settings.complain(); return; }
  await drawPlace(written());
}

// Draw another query, with the settings of the form.
function ask(query, changes = {}) {
  box.text = query;
  settings.write({ ...settings.read(), ...changes });
  draw();
}

// Go to a place, as by a link.
function visit(place) {
  panels.makeWay();
  navigation.push(place);
  restore(place, {});
}

function vary(indices) {
  drawPlace(visits.variations(indices, info.limits.pictures));
}

async function restore(place, state) {
  if (!place) return;
  if (store.state.run?.key === keyOf(place)) { visits.arrive(place, state.draft); return; } // the query box and the settings stay
  const lost = settings.write(place.settings);
  changedModel();
  const asked = { ...place, settings: settings.read(), fingerprint: settings.model.fingerprint };
  box.text = state.draft?.query ?? place.query;
  if (state.draft) settings.write(state.draft.settings);
  const other = place.fingerprint && place.fingerprint !== settings.model.fingerprint;
  const notes = [
    lost.length ? `This studio does not offer ${lost.join(", ")}.` : "",
    other ? "The link was made with other weights: its pictures may differ." : "",
  ].filter(Boolean);
  $("banner").hidden = !notes.length;
  $("banner").textContent = notes.join(" ");
  if (store.state.run?.key === keyOf(asked)) { visits.arrive(place, state.draft); return; }
  store.set({ open: null });
  try {
    await runs.show(asked, () => visits.arrive(place, state.draft));
  } catch (problem) {
    if (!box.refuse(place.query, problem)) store.set({ failure: problem });
  }
}

function changedModel() {
  language = modelOf(settings.model.name).language;
  builder.fill();
  $("teach").hidden = !settings.model.teachable;
  $("teach").href = `/lessons/${encodeURIComponent(settings.model.name)}/`;
  $("words-summary").textContent = `${plural(language.attributes.length, "attribute")}. What you choose is joined by AND.`;
  $("examples").replaceChildren(...settings.model.examples.map((text) => h("button", { type: "button", class: "chip", onclick: () => ask(text) }, text)));
}

// The page of a lesson is visited once the studio has opened it; else this page says why not.
async function teach(event) {
  event.preventDefault();
  const link = $("teach");
  try {
    link.setAttribute("aria-busy", "true");
    await call("GET", `${link.getAttribute("href")}api/lesson`);
    location.assign(link.href);
  } catch (problem) {
    store.set({ failure: problem });
  } finally {
    link.removeAttribute("aria-busy");
  }
}

function changedSetting(id) {
  if (id === "model") changedModel();
  if (["model", "semantics", "weak", "verify"].includes(id)) box.check();
  navigation.typed();
}

async function start() {
  startTheme();
  startSize();
  followBar();
  startDownloads();
  panels = new Panels(store);
  try {
    info = await call("GET", "/api/info");
  } catch (problem) {
    $("banner").hidden = false;
    $("banner").textContent = problem.message;
    return;
  }
  $("version").textContent = `energyql ${info.version}`;
  past = new Past(store);
  runs = new Runs(store, past, modelOf);
  settings = new SettingsForm(info, changedSetting);
  language = modelOf(settings.model.name).language;
  const placeholder = settings.model.examples[0] ?? "";
  box = new QueryBox($("query"), { label: "Query", placeholder, language: () => language, ask: () => asking(settings.read()), changed: showCheck, submit: draw, allow: (names) => settings.allow(names) });
  builder = new Builder(box, () => language);
  navigation = new Navigation(restore, () => ({ query: box.text, settings: settings.read(), step: store.state.open === null ? "" : editOf(store.state.run, store.state.open).draft }));
  tray = new Tray(store, past, { restore: visit });
  board = new Board(store, { language: () => language, close: () => visit({ ...visits.shown, edit: null }), draw: (query, chosen) => { settings.write(chosen); ask(query); } });
  others.push(new Compare(store, { info, written, language: () => language, show: (wanted) => { panels.makeWay(); visits.compare(wanted); } }));
  others.push(new Chosen(store, { step: (edits, steps, options) => visits.stepTogether(edits, steps, options), vary, most: info.limits.pictures, favour: (picture) => tray.favour(picture), open: () => panels.open("many"), language: () => language }));
  others.push(new Files({
    model: () => settings.model.name,
    photograph: (upload) => { panels.makeWay(); return visits.photograph({ query: "TRUE", settings: settings.read(), fingerprint: settings.model.fingerprint }, upload); },
    restore: (path, request, index, notes) => {
      visit(placeOf(path, request, index, settings.read(), settings.model.fingerprint));
      if (notes.length) { $("banner").hidden = false; $("banner").textContent = `${notes.join(". ")}.`; }
    },
  }));
  wall = new Wall(store, { open: (picture) => visits.open(picture), select: (picture) => tray.select(picture), favour: (picture) => tray.favour(picture) });
  detail = new Detail(store, {
    limits: info.limits,
    link: () => linkTo(visits.shown),
    language: () => language,
    typed: () => navigation.typed(),
    step: (edit, steps, options) => visits.step(edit, steps, options),
    go: (by) => visits.goBy(by),
    close: () => visits.close(),
    favour: (picture) => tray.favour(picture),
    seed: () => { settings.write({ ...settings.read(), seed: store.state.run.settings.seed }); visits.close(); say("The seed is set"); },
    vary: (picture) => vary([picture.index]),
  });
  visits.parts = { navigation, runs, past, wall, detail, board };
  reportRuns(store);
  showHistory(store, { show: visit, forget: () => past.forget() });
  changedModel();
  $("draw").addEventListener("click", draw);
  $("dice").addEventListener("click", () => settings.anotherSeed());
  $("cancel").addEventListener("click", () => { runs.cancel(); say("Cancelling"); });
  $("teach").addEventListener("click", teach);
  $("copy-link").addEventListener("click", () => copyFrom($("copy-link"), linkTo(written())));
  $("skip").addEventListener("click", (event) => { event.preventDefault(); $("pictures").focus(); });
  startKeys({ draw, focus: () => box.focus(), dice: () => { settings.anotherSeed(); draw(); }, go: (by) => visits.goBy(by), favour: () => detail.picture && tray.favour(detail.picture), open: () => store.state.open !== null, panels });
  const { place, state } = navigation.arrive();
  if (place) { restore(place, state); return; }
  box.text = state.draft?.query ?? placeholder;
  if (box.text) draw();
}

start();
