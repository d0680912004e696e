"use strict";
(() => {
  const number = (text) => {
    const found = text.replace(/\u2212/g, "-").replace(/,/g, "").match(/-?\d+(\.\d+)?(e[-+]?\d+)?/i);
    return found ? Number(found[0]) : null;
  };

  // Tables: a click, Enter or Space on a heading sorts up, down, and back to the plan's order.
  const sortable = (table) => {
    const body = table.tBodies[0], planned = [...body.rows], heads = [...table.tHead.rows[0].cells];
    const key = (row, column) => {
      const text = row.cells[column].textContent.trim();
      return heads[column].classList.contains("num") ? number(text) : text.toLowerCase();
    };
    const order = (column, up) => [...planned].sort((one, two) => {
      const a = key(one, column), b = key(two, column);
      // What has no number stays below, whichever way the numbers go.
      if (a === null || b === null) return (a === null) - (b === null);
      const sign = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
      return up ? sign : -sign;
    });
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", next);
        body.append(...(next === "none" ? planned : order(column, next === "ascending")));
      });
    });
  };
  document.querySelectorAll("table.sortable").forEach(sortable);

  // Learning curves: the values of the epoch under the pointer, or of the one that the arrow keys chose. The drawing marks
  // where its panels are; the values and the limits of the axes are those of the table below it.
  const readable = (reading) => {
    const patch = document.getElementById(reading.dataset.area), table = reading.querySelector("table.values");
    if (!patch || !table) return;
    const wrap = patch.closest(".wrap"), colours = reading.dataset.colours.split(" ");
    const [left, right, low, high] = ["left", "right", "low", "high"].map((name) => Number(reading.dataset[name]));
    const names = [...table.tHead.rows[0].cells].slice(1).map((cell) => cell.textContent);
    const epochs = [...table.tBodies[0].rows].map((row) => ({
      epoch: Number(row.cells[0].textContent), texts: [...row.cells].slice(1).map((cell) => cell.textContent),
    }));
    if (!epochs.length) return;
    const made = (name) => Object.assign(document.createElement("div"), { className: name });
    const area = made("plot-area"), outer = wrap.getBoundingClientRect(), inner = patch.getBoundingClientRect();
    const share = (value, whole) => `${(100 * value) / whole}%`;
    area.style.left = share(inner.left - outer.left, outer.width);
    area.style.top = share(inner.top - outer.top, outer.height);
    area.style.width = share(inner.width, outer.width);
    area.style.height = share(inner.height, outer.height);
    area.tabIndex = 0;
    const attributes = { role: "slider", "aria-orientation": "horizontal", "aria-label": `${reading.dataset.title}: epoch`,
      "aria-valuemin": epochs[0].epoch, "aria-valuemax": epochs.at(-1).epoch, "aria-valuenow": epochs.at(-1).epoch };
    Object.entries(attributes).forEach(([name, value]) => area.setAttribute(name, value));
    wrap.append(area);
    const cursor = made("cursor"), tip = made("tip"), marks = names.map((_, i) => made(`dot ${colours[i]}`));
    let chosen = epochs.length - 1;
    const hide = () => { cursor.remove(); tip.remove(); marks.forEach((mark) => mark.remove()); };
    const show = (index) => {
      chosen = Math.max(0, Math.min(epochs.length - 1, index));
      const { epoch, texts } = epochs[chosen], x = (100 * (epoch - left)) / (right - left);
      cursor.style.left = `${x}%`;
      tip.replaceChildren(Object.assign(document.createElement("strong"), { textContent: `epoch ${epoch}` }));
      const lines = names.map((name, i) => ({ name, i, value: number(texts[i]) })).filter((line) => line.value !== null);
      lines.sort((one, two) => two.value - one.value);
      for (const { name, i } of lines) {
        const line = made(""), key = made(`key ${colours[i]}`), value = made("");
        key.textContent = name;
        value.textContent = texts[i];
        line.append(key, value);
        tip.append(line);
      }
      marks.forEach((mark, i) => {
        const value = number(texts[i]);
        const down = value === null ? -1 : (high - value) / (high - low);
        mark.hidden = down < 0 || down > 1;
        mark.style.left = `${x}%`;
        mark.style.top = `${100 * down}%`;
      });
      tip.style.left = x < 50 ? `calc(${x}% + 0.75rem)` : "auto";
      tip.style.right = x < 50 ? "auto" : `calc(${100 - x}% + 0.75rem)`;
      area.append(cursor, ...marks, tip);
      area.setAttribute("aria-valuenow", epoch);
      area.setAttribute("aria-valuetext", `epoch ${epoch}: ${lines.map((line) => `${line.name} ${texts[line.i]}`).join(", ")}`);
    };
    const point = (event) => {
      const box = area.getBoundingClientRect(), wanted = left + ((event.clientX - box.left) / box.width) * (right - left);
      let nearest = 0;
      epochs.forEach(({ epoch }, i) => {
        if (Math.abs(epoch - wanted) < Math.abs(epochs[nearest].epoch - wanted)) nearest = i;
      });
      show(nearest);
    };
    area.addEventListener("pointermove", point);
    area.addEventListener("pointerdown", point);
    area.addEventListener("pointerleave", () => { if (document.activeElement !== area) hide(); });
    area.addEventListener("focus", () => show(chosen));
    area.addEventListener("blur", hide);
    area.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -1e9, End: 1e9 };
      if (event.key === "Escape") hide();
      else if (event.key in steps) { event.preventDefault(); show(chosen + steps[event.key]); }
    });
  };
  document.querySelectorAll(".reading").forEach(readable);

  // A link into a box that is closed opens it. On paper boxes that matter are open, and closed again afterwards.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.print:not([open])")];
    opened.forEach((box) => { box.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((box) => { box.open = false; }));
})();
