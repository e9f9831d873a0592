// The page: starts everything, and keeps query, settings, pictures and address together.

import { call } from "./api.js";
import { Builder } from "./build.js";
import { Detail } from "./detail.js";
import { $, copyFrom, drawing, h, plural, say } from "./dom.js";
import { editOf } from "./edits.js";
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
import { Wall } from "./wall.js";

const store = new Store({ run: null, open: null, selected: new Set(), failure: null, panel: "", past: [], tray: [] });
let settings, language, box, builder, panels, past, runs, navigation, wall, detail, tray, info;

// What stands in the box and in the settings, drawn or not.
const written = () => ({ query: box.text.trim(), settings: settings.read(), fingerprint: settings.model.fingerprint });

// What the page shows: the run on the wall, and the picture that is open.
function shown() {
  const { run, open } = store.state;
  const edit = open === null ? null : editOf(run, open);
  return { query: run.query, settings: run.settings, fingerprint: run.fingerprint, edit: edit && { index: open, steps: edit.steps, options: edit.options } };
}

function modelOf(name) {
  const model = info.models.find((each) => each.name === name);
  return { model, language: new Language(info.keywords, model.attributes) };
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

async function draw() {
  if (!box.text.trim() || box.broken) { box.focus(); return; }
  if (!settings.valid) { panels.open("settings"); settings.complain(); return; }
  const asked = written();
  try {
    await runs.draw(asked, () => {
      navigation.dropDraft();
      const first = !navigation.here.place;
      if (first || keyOf(navigation.here.place) === keyOf(asked)) navigation.replace(asked);
      else navigation.push(asked);
      store.set({ open: null });
    });
  } catch (problem) {
    if (!box.refuse(box.text, problem)) store.set({ failure: problem });
  }
}

// Draw another query, with the settings that stand there.
function ask(query, changes = {}) {
  box.text = query;
  settings.write({ ...settings.read(), ...changes });
  draw();
}

function openPicture({ index }) {
  store.set({ open: index });
  navigation.push(shown(), navigation.depth + 1);
  const edit = editOf(store.state.run, index);
  if (edit.steps.length && !edit.pictures.length) step(edit, edit.steps, edit.options, false);
}

async function step(edit, steps, options, told = true) {
  const { run } = store.state;
  const done = await edit.go(run, steps, options, () => store.touched("run"));
  if (!done) return false;
  past.update(run);
  if (told && store.state.run === run && store.state.open === edit.index) navigation.push(shown(), navigation.depth + 1);
  return true;
}

function closePicture() {
  const { open } = store.state;
  if (navigation.leave({ ...shown(), edit: null })) store.set({ open: null });
  wall.focus(open);
}

function goBy(by) {
  const next = detail.neighbour(by);
  if (!next) return;
  store.set({ open: next.index });
  navigation.replace(shown());
  const edit = editOf(store.state.run, next.index);
  if (edit.steps.length && !edit.pictures.length) step(edit, edit.steps, edit.options, false);
}

// Open the picture that an address names. Steps beyond those of the address stay: Back shows an earlier one.
function openPlace(place, draft) {
  if (!place.edit) {
    const { open } = store.state;
    store.set({ open: null });
    if (open !== null) wall.focus(open);
    return;
  }
  const { index, steps, options } = place.edit;
  const edit = editOf(store.state.run, index);
  if (draft?.step) edit.draft = draft.step;
  store.set({ open: index });
  if (edit.steps.length >= steps.length && edit.has(steps, options)) detail.look(steps.length);
  else if (steps.length) step(edit, steps, options, false);
}

async function restore(place, state) {
  if (!place) return;
  const lost = settings.write(place.settings);
  changedModel();
  const asked = { query: place.query, settings: settings.read(), fingerprint: settings.model.fingerprint };
  box.text = state.draft?.query ?? place.query;
  if (state.draft) settings.write(state.draft.settings);
  const other = place.fingerprint && place.fingerprint !== settings.model.fingerprint;
  const notes = [
    lost.length ? `This studio does not offer ${lost.join(", ")}.` : "",
    other ? "The link was made with other weights: its pictures may differ." : "",
  ].filter(Boolean);
  $("banner").hidden = !notes.length;
  $("banner").textContent = notes.join(" ");
  if (store.state.run?.key === keyOf(asked)) { openPlace(place, state.draft); return; }
  store.set({ open: null });
  try {
    await runs.show(asked, () => openPlace(place, state.draft));
  } catch (problem) {
    if (!box.refuse(place.query, problem)) store.set({ failure: problem });
  }
}

function changedModel() {
  language = modelOf(settings.model.name).language;
  builder.fill();
  $("words-summary").textContent = `${plural(language.attributes.length, "attribute")}. What you choose is joined by AND.`;
  $("examples").replaceChildren(...settings.model.examples.map((text) => h("button", { type: "button", class: "chip", onclick: () => ask(text) }, text)));
}

function changedSetting(id) {
  if (id === "model") changedModel();
  if (["model", "semantics", "weak"].includes(id)) box.check();
  navigation.typed();
}

async function start() {
  startTheme();
  startSize();
  followBar();
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
  tray = new Tray(store, past, { runs, ask, restore: (place) => { navigation.push(place); restore(place, {}); } });
  wall = new Wall(store, { open: openPicture, select: (picture) => tray.select(picture), favour: (picture) => tray.favour(picture) });
  detail = new Detail(store, {
    limits: info.limits,
    link: () => linkTo(shown()),
    language: () => language,
    typed: () => navigation.typed(),
    step,
    go: goBy,
    close: closePicture,
    favour: (picture) => tray.favour(picture),
    seed: () => { settings.write({ ...settings.read(), seed: store.state.run.settings.seed }); closePicture(); say("The seed is set"); },
    vary: (picture) => tray.vary([picture]),
  });
  reportRuns(store);
  showHistory(store, { show: (place) => { navigation.push(place); restore(place, {}); }, forget: () => past.forget() });
  changedModel();
  $("draw").addEventListener("click", draw);
  $("dice").addEventListener("click", () => settings.anotherSeed());
  $("cancel").addEventListener("click", () => { runs.cancel(); say("Cancelling"); });
  $("copy-link").addEventListener("click", () => copyFrom($("copy-link"), linkTo(written())));
  $("skip").addEventListener("click", (event) => { event.preventDefault(); $("pictures").focus(); });
  startKeys({ draw, focus: () => box.focus(), dice: () => { settings.anotherSeed(); draw(); }, go: goBy, favour: () => detail.picture && tray.favour(detail.picture), open: () => store.state.open !== null, panels });
  const { place, state } = navigation.arrive();
  if (place) { restore(place, state); return; }
  box.text = state.draft?.query ?? placeholder;
  if (box.text) draw();
}

start();
