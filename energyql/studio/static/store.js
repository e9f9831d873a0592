// The state of the page, in one place. Views are functions of it that are called when a part they name has changed.

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

  // Something inside these parts has changed.
  touched(...names) {
    for (const [wanted, view] of this.views) if (names.some((name) => wanted.includes(name))) view(this.state);
  }
}

// Values that outlive a visit. A browser may refuse to keep anything: then they last as long as the page.
export function recall(name, otherwise) {
  try {
    const found = JSON.parse(localStorage.getItem(`energyql-${name}`));
    return found === null ? otherwise : found;
  } catch { return otherwise; }
}

export function keep(name, value) {
  try { localStorage.setItem(`energyql-${name}`, JSON.stringify(value)); return true; } catch { return false; }
}
