"use strict";
// Sorts tables, and shows the image of a point of the map. Without it the page lacks only that.
(() => {
  const status = document.getElementById("status");

  // The contents are folded on a telephone and open on a desk.
  const contents = document.querySelector(".contents");
  const wide = matchMedia("(min-width: 75rem)");
  const unfold = () => { contents.open = wide.matches; };
  wide.addEventListener("change", unfold);
  unfold();

  // A table that is wider than its place says so.
  const watched = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const cut = target.scrollWidth > target.clientWidth + 1;
      const said = target.previousElementSibling;
      if (said?.className.startsWith("cut")) said.classList.toggle("shown", cut);
    }
  });
  for (const place of document.querySelectorAll(".scroll")) watched.observe(place);

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const given = [...body.rows];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const was = head.getAttribute("aria-sort");
        // Numbers begin with the largest, names with the first; a third click undoes it.
        const numeric = given.some((row) => row.cells[column].dataset.value !== undefined);
        const first = numeric ? "descending" : "ascending";
        const second = numeric ? "ascending" : "descending";
        const now = was === null ? first : was === first ? second : null;
        heads.forEach((one) => one.removeAttribute("aria-sort"));
        let rows = given;
        if (now !== null) {
          head.setAttribute("aria-sort", now);
          const sign = now === "ascending" ? 1 : -1;
          rows = [...given].sort((a, b) => sign * compared(a.cells[column], b.cells[column]));
          const lacking = (row) => numeric && row.cells[column].dataset.value === undefined;
          rows = [...rows.filter((row) => !lacking(row)), ...rows.filter(lacking)];
        }
        body.append(...rows);
        status.textContent = now === null
          ? `${table.caption.textContent}: in the order given`
          : `${table.caption.textContent}: sorted by ${button.textContent}, ${now}`;
      });
    });
  }

  function compared(a, b) {
    if (a.dataset.value !== undefined && b.dataset.value !== undefined) {
      return Number(a.dataset.value) - Number(b.dataset.value);
    }
    return a.textContent.localeCompare(b.textContent);
  }

  const block = document.getElementById("map-data");
  if (!block) return;
  const data = JSON.parse(block.textContent);
  const peek = document.createElement("div");
  peek.className = "peek";
  peek.hidden = true;

  for (const drawing of document.querySelectorAll("[data-map]")) explore(drawing);

  function explore(drawing) {
    const svg = drawing.querySelector("svg");
    const points = [...svg.querySelectorAll("use[data-i]")].map((mark) => ({
      mark, i: Number(mark.dataset.i),
      x: Number(mark.getAttribute("x")), y: Number(mark.getAttribute("y")),
    }));
    let at = null;
    drawing.tabIndex = 0;
    drawing.setAttribute("role", "application");
    drawing.setAttribute("aria-label",
      `${svg.getAttribute("aria-label")} Arrow keys move from image to image.`);

    const nearest = (x, y, fits) => {
      let best = null;
      let least = Infinity;
      for (const one of points) {
        if (fits && !fits(one)) continue;
        const d = (one.x - x) ** 2 + (one.y - y) ** 2;
        if (d < least) { least = d; best = one; }
      }
      return best;
    };

    const leave = () => {
      if (at) at.mark.classList.remove("at");
      at = null;
      peek.hidden = true;
    };

    const show = (one, aloud) => {
      if (!one || one === at) return;
      if (at) at.mark.classList.remove("at");
      at = one;
      one.mark.classList.add("at");
      const name = data.class_names[data.labels[one.i]];
      const where = `${data.split_names[data.splits[one.i]]}: ${data.paths[one.i]}`;
      const title = document.createElement("b");
      title.textContent = name;
      const line = document.createElement("span");
      line.textContent = where;
      peek.replaceChildren(...picture(data.keys[one.i]), title, line);
      drawing.append(peek);
      peek.hidden = false;
      place(drawing, svg, one);
      if (aloud) status.textContent = `${name}, ${where}`;
    };

    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      show(nearest((event.clientX - box.left) * scale, (event.clientY - box.top) * scale));
    });
    svg.addEventListener("pointerdown", () => drawing.focus({ preventScroll: true }));
    svg.addEventListener("pointerleave", () => {
      if (document.activeElement !== drawing) leave();
    });
    drawing.addEventListener("focus", () => {
      if (!at) {
        const box = svg.viewBox.baseVal;
        show(nearest(box.width / 2, box.height / 2), true);
      }
    });
    drawing.addEventListener("blur", leave);
    drawing.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return leave();
      const from = at || nearest(0, 0);
      const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const step = steps[event.key];
      if (!step || !from) return;
      event.preventDefault();
      // The nearest point within 45 degrees of the direction.
      show(nearest(from.x, from.y, (one) => {
        const along = (one.x - from.x) * step[0] + (one.y - from.y) * step[1];
        const across = Math.abs((one.x - from.x) * step[1]) + Math.abs((one.y - from.y) * step[0]);
        return one !== from && along > 0 && across <= along;
      }), true);
    });
  }

  function picture(key) {
    if (!key) return [];
    if (data.pictures[key]) {
      const image = document.createElement("img");
      image.alt = "";
      image.src = `data:image/webp;base64,${data.pictures[key]}`;
      return [image];
    }
    const stored = document.getElementById(key);
    if (!stored) return [];
    const space = "http://www.w3.org/2000/svg";
    const [width, height] = ["width", "height"].map((name) => Number(stored.getAttribute(name)));
    const scale = Math.min(1, 112 / Math.max(width, height));
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", width * scale);
    svg.setAttribute("height", height * scale);
    svg.setAttribute("aria-hidden", "true");
    const use = document.createElementNS(space, "use");
    use.setAttribute("href", `#${key}`);
    svg.append(use);
    return [svg];
  }

  function place(drawing, svg, one) {
    const outer = drawing.getBoundingClientRect();
    const box = svg.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    const x = box.left - outer.left + one.x * scale;
    const y = box.top - outer.top + one.y * scale;
    const [width, height] = [peek.offsetWidth, peek.offsetHeight];
    const left = x + 14 + width <= outer.width ? x + 14 : x - 14 - width;
    peek.style.left = `${Math.min(Math.max(0, left), outer.width - width)}px`;
    peek.style.top = `${Math.min(Math.max(0, y - height / 2), outer.height - height)}px`;
  }
})();
