/* Sorting, filtering and column choice for each `table[data-interactive][id]`, kept in the address after its `#`.

   The markup: one header row; `th[scope=col][data-sort=text|number]` can be sorted by; a numeric cell has its value in
   `data-value`, none is no data. The script fetches and stores nothing and makes no text into markup. Without it every
   table is complete, in the order of the page.

   A table with `data-languages` (codes and names as JSON) can be filtered by its rows' `data-kind`, `data-audited`,
   `data-raced` and sorted by `data-acceptance` (figures by code as JSON): `#runs.lang=te&runs.kind=model&runs.audited=1`.

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
  const nothing = () => ({ column: -1, direction: "", filter: "", away: new Set(), lang: "", kind: "", audited: "", raced: "" });

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
      const tools = make("div", { className: "tools" }, filter, ...this.choices(), reset, this.status, columns);
      const region = this.table.closest(".scroll");
      const { caption, id } = this.table;
      const name = caption ? label(caption) : (region?.getAttribute("aria-label") ?? id);
      tools.setAttribute("role", "group");
      tools.setAttribute("aria-label", `Tools: ${name}`);
      this.tools = tools;
      return tools;
    }

    /** What a board's rows can be chosen by: a language to sort by, a kind, audited or raced ones alone. */
    choices() {
      this.controls = new Map();
      if (!this.table.dataset.languages) return [];
      this.figures = this.rows.map((row) => JSON.parse(row.dataset.acceptance || "{}"));
      const kinds = [...new Set(this.rows.map((row) => row.dataset.kind))].sort(collator.compare);
      const languages = JSON.parse(this.table.dataset.languages);
      const select = (name, title, options) => {
        const made = options.map(([value, textContent]) => make("option", { value, textContent }));
        const box = make("select", {}, make("option", { value: "", textContent: "all" }), ...made);
        box.addEventListener("change", () => this.change({ [name]: box.value, ...(name === "lang" && { column: -1 }) }));
        this.controls.set(name, box);
        return make("label", {}, `${title} `, box);
      };
      const only = (name, title) => {
        const box = make("input", { type: "checkbox", value: "1" });
        box.addEventListener("change", () => this.change({ [name]: box.checked ? "1" : "" }));
        this.controls.set(name, box);
        return make("label", {}, box, ` ${title}`);
      };
      this.names = new Map(languages);
      return [
        select("lang", "Language", languages),
        select("kind", "Kind", kinds.map((kind) => [kind, kind])),
        only("audited", "audited"),
        only("raced", "raced"),
      ];
    }

    /** Whether a row is of what is chosen. */
    fits(row, { kind, audited, raced }) {
      return (!kind || row.dataset.kind === kind) && (!audited || row.dataset.audited) && (!raced || row.dataset.raced);
    }

    /** The rows by their acceptance in a language, highest first, which each row then tells; no data last. */
    byLanguage(lang) {
      const value = (place) => this.figures[place][lang] ?? -1;
      const places = this.rows.map((_, place) => place).sort((a, b) => value(b) - value(a) || a - b);
      return places.map((place) => this.rows[place]);
    }

    tell(lang) {
      if (!this.controls.size) return;
      this.rows.forEach((row, place) => {
        row.querySelector(".in-language")?.remove();
        const figure = this.figures[place][lang];
        if (!lang) return;
        const textContent = `${this.names.get(lang)} ${figure === undefined ? "–" : figure.toFixed(3)}`;
        row.querySelector("th").append(make("span", { className: "in-language", textContent }));
      });
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
      for (const [name, box] of this.controls) {
        if (box.type === "checkbox") box.checked = Boolean(state[name]);
        else box.value = state[name];
      }
      this.order(state);
      this.tell(state.lang);
      this.sift(state);
      this.choose(state.away);
    }

    order({ column, direction, lang }) {
      const given = () => (lang ? this.byLanguage(lang) : this.rows);
      const sorted = column < 0 ? given() : this.sorted(column, direction === "ascending" ? 1 : -1);
      if (sorted.some((row, place) => row !== this.body.rows[place])) this.body.replaceChildren(...sorted);
      for (const head of this.heads) head.removeAttribute("aria-sort");
      const [marked, way] = column < 0 ? [lang ? -1 : this.presorted, this.presort] : [column, direction];
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

    sift(state) {
      const { filter } = state;
      if (this.input.value !== filter) this.input.value = filter;
      const wanted = plain(filter).split(/\s+/).filter(Boolean);
      if (wanted.length) this.texts ??= this.rows.map((row) => plain([...row.cells].map(label).join(" ")));
      let shown = 0;
      this.rows.forEach((row, place) => {
        row.hidden = !this.fits(row, state) || !wanted.every((word) => this.texts[place].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      this.status.textContent = shown ? `${shown} of ${this.rows.length} rows` : "No row fits. Reset shows all.";
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
        ...["lang", "kind", "audited", "raced"].map((name) => {
          return this.state[name] && `${id}.${name}=${encodeURIComponent(this.state[name])}`;
        }),
        away.size > 0 && `${id}.hide=${[...away].sort((a, b) => a - b).map((each) => each + 1).join(",")}`,
      ].filter(Boolean);
    }

    /** `state` with one item of an address in it; an item that makes no sense changes nothing. */
    take(state, name, value) {
      if (name === "q") state.filter = value.slice(0, LONGEST);
      const box = this.controls.get(name);
      if (box && (box.options ? [...box.options].some((option) => option.value === value) : value === "1")) state[name] = value;
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
      const [, id, name, value] = /^([^=]+)\.(sort|q|hide|lang|kind|audited|raced)=(.*)$/.exec(item) ?? [];
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

  // ------------------------------------------------------------------ figures to take along

  const STYLES = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "opacity", "font", "text-anchor", "overflow"];

  /** A plot as a file of its own: as wide as it is shown, with the style that it has here. */
  function standalone(plot) {
    const copy = plot.cloneNode(true);
    const { width, height } = plot.getBoundingClientRect();
    const here = [plot, ...plot.querySelectorAll("*")];
    [copy, ...copy.querySelectorAll("*")].forEach((element, place) => {
      const style = getComputedStyle(here[place]);
      for (const name of STYLES) element.style.setProperty(name, style.getPropertyValue(name));
    });
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.style.background = getComputedStyle(document.body).backgroundColor;
    return { text: new XMLSerializer().serializeToString(copy), width, height };
  }

  function png({ text, width, height }) {
    return new Promise((resolve, reject) => {
      const picture = new Image();
      picture.onerror = reject;
      picture.onload = () => {
        const canvas = make("canvas", { width: 2 * width, height: 2 * height });
        canvas.getContext("2d").drawImage(picture, 0, 0, 2 * width, 2 * height);
        canvas.toBlob(resolve, "image/png");
      };
      picture.src = `data:image/svg+xml,${encodeURIComponent(text)}`;
    });
  }

  /** The table as CSV; a cell that a spreadsheet would run begins with an apostrophe. */
  function csv(table) {
    const cell = (each) => `"${label(each).replace(/^[=+@-](?![\d.])/, "'$&").replaceAll('"', '""')}"`;
    return [...table.rows].map((row) => [...row.cells].map(cell).join(",")).join("\n");
  }

  function save(blob, name) {
    const link = make("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  for (const figure of document.querySelectorAll("figure")) {
    const plot = figure.querySelector("svg.plot");
    const table = figure.querySelector("table");
    if (!plot || !table) continue;
    const name = plot.getAttribute("aria-labelledby").split("-title")[0];
    const kinds = {
      SVG: async () => save(new Blob([standalone(plot).text], { type: "image/svg+xml" }), `${name}.svg`),
      PNG: async () => save(await png(standalone(plot)), `${name}.png`),
      CSV: async () => save(new Blob([csv(table)], { type: "text/csv" }), `${name}.csv`),
    };
    const buttons = Object.entries(kinds).map(([kind, take]) => {
      const button = make("button", { type: "button", textContent: kind });
      button.addEventListener("click", take);
      return button;
    });
    figure.append(make("p", { className: "take" }, "Download ", ...buttons));
  }

  for (const table of document.querySelectorAll("table[data-interactive][id]")) {
    if (table.tHead?.rows.length && table.tBodies.length) views.set(table.id, new View(table));
  }
  read()?.tools.scrollIntoView();
  addEventListener("hashchange", read);
})();
