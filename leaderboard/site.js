/* Sorting, filtering and column choice for each `table[data-interactive][id]`, kept in the address after its `#`.

   The markup: one header row; `th[scope=col][data-sort=text|number]` can be sorted by; a numeric cell has its value in
   `data-value`, none is no data. The script fetches and stores nothing and makes no text into markup. Without it every
   table is complete, in the order of the page.

   An address reads `#runs.sort=2d&runs.q=swahili&runs.hide=3,5`: by column 2 descending, rows with that word, columns 3
   and 5 away. Any other fragment is left to the browser. */
"use strict";

(() => {
  const LONGEST = 200; // characters of a filter
  const NO_DATA = new Set(["", "–"]);
  const collator = new Intl.Collator(document.documentElement.lang || undefined, { numeric: true });

  const plain = (text) => text.normalize("NFKC").toLowerCase();
  const label = (element) => element.textContent.replace(/\s+/g, " ").trim();
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const nothing = () => ({ column: -1, direction: "", filter: "", away: new Set() });

  /** One table, its toolbar, and what of it is shown. */
  class View {
    constructor(table) {
      this.table = table;
      this.body = table.tBodies[0];
      this.rows = [...this.body.rows]; // the server's order, always
      this.heads = [...table.tHead.rows[0].cells];
      this.keys = new Map();
      this.presorted = this.heads.findIndex((head) => head.hasAttribute("aria-sort"));
      this.presort = this.heads[this.presorted]?.getAttribute("aria-sort") ?? "";
      this.state = nothing();
      this.sorters = this.heads.filter((head) => head.matches("[scope=col][data-sort]"));
      this.sorters.forEach((head) => this.addButton(head));
      (table.closest(".scroll") ?? table).before(this.toolbar());
      this.show(this.state);
    }

    addButton(head) {
      const button = make("button", { type: "button", className: "sort" }, ...head.childNodes);
      button.addEventListener("click", () => this.change(this.turned(head.cellIndex)));
      head.append(button);
    }

    toolbar() {
      this.input = make("input", { type: "search", autocomplete: "off", spellcheck: false, maxLength: LONGEST });
      this.input.addEventListener("input", () => this.change({ filter: this.input.value }));
      const naming = (column) => column === 0 || this.rows[0]?.cells[column]?.matches("th"); // never hidden
      const free = this.heads.map((head) => head.cellIndex).filter((column) => !naming(column));
      this.boxes = new Map(free.map((column) => [column, make("input", { type: "checkbox" })]));
      this.boxes.forEach((box, column) => {
        box.addEventListener("change", () => this.change({ away: this.moved(column) }));
      });
      const reset = make("button", { type: "button", textContent: "Reset" });
      reset.addEventListener("click", () => this.change(nothing()));
      this.status = make("p", { className: "tools-status" });
      this.status.setAttribute("role", "status");

      const choices = [...this.boxes].map(([column, box]) => make("label", {}, box, ` ${label(this.heads[column])}`));
      const summary = make("summary", { textContent: "Columns" });
      const columns = make("details", { className: "tools-columns" }, summary, ...choices);
      const filter = make("label", { className: "tools-filter" }, "Filter rows ", this.input);
      const tools = make("div", { className: "tools" }, filter, reset, this.status, columns);
      const region = this.table.closest(".scroll");
      const { caption, id } = this.table;
      const name = caption ? label(caption) : (region?.getAttribute("aria-label") ?? id);
      tools.setAttribute("role", "group");
      tools.setAttribute("aria-label", `Tools: ${name}`);
      this.tools = tools;
      return tools;
    }

    /** The sort after one more activation of a column: one way, the other way, the server's order. */
    turned(column) {
      const natural = this.heads[column].dataset.sort === "number" ? "descending" : "ascending";
      const opposite = natural === "ascending" ? "descending" : "ascending";
      const turns = column === this.presorted && this.presort === natural ? [opposite, natural] : [natural, opposite];
      const next = this.state.column === column ? turns.indexOf(this.state.direction) + 1 : 0;
      return next < turns.length ? { column, direction: turns[next] } : { column: -1, direction: "" };
    }

    /** The columns that are away once this one has changed sides. */
    moved(column) {
      const away = new Set(this.state.away);
      if (!away.delete(column)) away.add(column);
      return away;
    }

    change(part) {
      this.show({ ...this.state, ...part });
      write();
    }

    show(state) {
      this.state = state;
      this.order(state);
      this.sift(state.filter);
      this.choose(state.away);
    }

    order({ column, direction }) {
      const sorted = column < 0 ? this.rows : this.sorted(column, direction === "ascending" ? 1 : -1);
      if (sorted.some((row, place) => row !== this.body.rows[place])) this.body.replaceChildren(...sorted);
      for (const head of this.heads) head.removeAttribute("aria-sort");
      const [marked, way] = column < 0 ? [this.presorted, this.presort] : [column, direction];
      this.heads[marked]?.setAttribute("aria-sort", way);
    }

    /** The rows by a column; equal ones in the server's order, those without data last, both ways. */
    sorted(column, sign) {
      const keys = this.keysOf(column);
      const compare = this.heads[column].dataset.sort === "number" ? (a, b) => a - b : collator.compare;
      const places = this.rows.map((_, place) => place);
      const known = places.filter((place) => keys[place] !== null);
      known.sort((a, b) => sign * compare(keys[a], keys[b]) || a - b);
      return [...known, ...places.filter((place) => keys[place] === null)].map((place) => this.rows[place]);
    }

    keysOf(column) {
      if (!this.keys.has(column)) {
        const read = this.heads[column].dataset.sort === "number" ? number : words;
        this.keys.set(column, this.rows.map((row) => read(row.cells[column])));
      }
      return this.keys.get(column);
    }

    sift(filter) {
      if (this.input.value !== filter) this.input.value = filter;
      const wanted = plain(filter).split(/\s+/).filter(Boolean);
      if (wanted.length) this.texts ??= this.rows.map((row) => plain([...row.cells].map(label).join(" ")));
      let shown = 0;
      this.rows.forEach((row, place) => {
        row.hidden = !wanted.every((word) => this.texts[place].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      this.status.textContent = shown ? `${shown} of ${this.rows.length} rows` : "No row has these words. Reset shows all.";
      this.tools.classList.toggle("empty", !shown);
    }

    choose(away) {
      for (const [column, box] of this.boxes) {
        box.checked = !away.has(column);
        if (this.heads[column].hidden === away.has(column)) continue;
        for (const row of this.table.rows) if (row.cells[column]) row.cells[column].hidden = away.has(column);
      }
    }

    /** This view's part of the address; nothing for the server's own view. */
    address() {
      const { column, direction, filter, away } = this.state;
      const id = encodeURIComponent(this.table.id);
      return [
        column >= 0 && `${id}.sort=${column + 1}${direction[0]}`,
        filter && `${id}.q=${encodeURIComponent(filter.replace(/\p{Surrogate}/gu, ""))}`,
        away.size > 0 && `${id}.hide=${[...away].sort((a, b) => a - b).map((each) => each + 1).join(",")}`,
      ].filter(Boolean);
    }

    /** `state` with one item of an address in it; an item that makes no sense changes nothing. */
    take(state, name, value) {
      if (name === "q") state.filter = value.slice(0, LONGEST);
      if (name === "hide") value.split(",").forEach((each) => this.boxes.has(each - 1) && state.away.add(each - 1));
      const [, place, way] = (name === "sort" && /^(\d{1,3})([ad])$/.exec(value)) || [];
      if (place && this.sorters.includes(this.heads[place - 1])) {
        state.column = place - 1;
        state.direction = way === "a" ? "ascending" : "descending";
      }
    }
  }

  const words = (cell) => (cell && !NO_DATA.has(label(cell)) ? label(cell) : null);
  const number = (cell) => {
    const value = Number.parseFloat(cell?.dataset.value);
    return Number.isNaN(value) ? null : value;
  };

  // ------------------------------------------------------------------ the address

  const views = new Map();
  let waiting = 0;

  /** What is shown, into the address: soon, since browsers limit how often that may be done. */
  function write() {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const items = [...views.values()].flatMap((view) => view.address());
      const bare = location.href.split("#")[0];
      history.replaceState(history.state, "", items.length ? `${bare}#${items.join("&")}` : bare);
    }, 150);
  }

  /** The address into what is shown; a plain anchor changes nothing. Returns the first table that it names. */
  function read() {
    const fragment = location.hash.slice(1);
    if (document.getElementById(decoded(fragment))) return null;
    const states = new Map();
    for (const item of fragment.split("&")) {
      const [, id, name, value] = /^([^=]+)\.(sort|q|hide)=(.*)$/.exec(item) ?? [];
      const view = id && views.get(decoded(id));
      if (!view) continue;
      if (!states.has(view)) states.set(view, nothing());
      view.take(states.get(view), name, decoded(value));
    }
    if (fragment && !states.size) return null;
    for (const view of views.values()) view.show(states.get(view) ?? nothing());
    return states.keys().next().value ?? null;
  }

  function decoded(text) {
    try {
      return decodeURIComponent(text);
    } catch {
      return "";
    }
  }

  for (const table of document.querySelectorAll("table[data-interactive][id]")) {
    if (table.tHead?.rows.length && table.tBodies.length) views.set(table.id, new View(table));
  }
  read()?.tools.scrollIntoView();
  addEventListener("hashchange", read);
})();
