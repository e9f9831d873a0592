// The state of the page, in one object. Views are functions of it, called after a change of the parts that they name.

export class Store {
  constructor(state) {
    this.state = state;
    this.views = [];
  }

  // `view(state)` is called after every change of one of the parts `names`.
  on(names, view) { this.views.push([names, view]); }

  set(changes) {
    Object.assign(this.state, changes);
    this.touched(...Object.keys(changes));
  }

  // Call the views of parts in which something has changed.
  touched(...names) {
    for (const [wanted, view] of this.views) if (names.some((name) => wanted.includes(name))) view(this.state);
  }
}

// Values that are stored in the browser; if it allows no storage, they last as long as the page.
export function recall(name, otherwise) {
  try {
    const found = JSON.parse(localStorage.getItem(`energyql-${name}`));
    return found === null ? otherwise : found;
  } catch { return otherwise; }
}

export function keep(name, value) {
  try { localStorage.setItem(`energyql-${name}`, JSON.stringify(value)); return true; } catch { return false; }
}
