"use strict";
// The labelling page: lists come in parts, cells exist only where they are seen.
(() => {
  const $ = (id) => document.getElementById(id);
  const LISTS = {
    doubtful: ["Doubtful labels", "Labels that heads which never saw the image contradict, the most doubtful first."],
    mistakes: ["Mistakes", "Images that the heads call otherwise than their label, the surest first."],
    near: ["Near-duplicates", "Images of different splits that are nearly the same. Group them, or exclude one."],
    unlabelled: ["To label", "Images without a label, in the order worth labelling."],
    random: ["Random check", "In random order: what is found here says how good the labels are."],
    changed: ["Changed", "What was changed, the latest first."],
    all: ["All", "All images, in the order of their paths."],
  };
  const PART = 100;
  const CELL = { width: 128, height: 132 };
  const status = $("status");
  const state = {
    kind: "doubtful", n: 0, parts: new Map(), info: null, current: null, position: 0,
    chosen: new Set(), columns: null, busy: false, epoch: 0,
  };
  const tag = (name, properties = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key === "class") made.className = value;
      else if (key in made && key !== "role") made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  };
  const percent = (p, digits = 1) => `${(100 * p).toFixed(digits)} %`;
  const count = (n) => n.toLocaleString("en");

  async function ask(path, body) {
    const answer = await fetch(path, body === undefined ? {} : {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    const found = await answer.json().catch(() => ({ error: `HTTP ${answer.status}` }));
    if (!answer.ok) throw new Error(found.error || `HTTP ${answer.status}`);
    return found;
  }

  // What stands at the top.

  function facts() {
    const info = state.info;
    $("name").textContent = info.name;
    document.title = `${info.name}: labels`;
    $("log").textContent = info.file;
    const estimate = info.estimate;
    const list = [
      ["Images", count(info.n_images)],
      ["Checked", count(info.n_checked)],
      ["Labels changed", count(info.n_changed)],
      ["Excluded", count(info.n_excluded)],
      ["Without a label", count(info.n_unlabelled)],
      ["Accuracy on test", estimate === null ? "…"
        : `${percent(estimate.accuracy)} (${percent(estimate.low)} to ${percent(estimate.high)}, n = ${count(estimate.n)}${estimate.n_groups ? ` of ${count(estimate.n_groups)} groups` : ""})`],
      ["Head", info.judged === info.version ? `current; fitted in ${info.seconds ?? 0} s` : "being fitted …"],
    ];
    $("facts").replaceChildren(...list.map(([name, value]) => tag("div", {},
      tag("dt", {}, name), tag("dd", {}, value))));
    if (info.failure) status.textContent = info.failure;
    const old = estimate && estimate.n_as_given
      ? ` ${estimate.n_as_given} test images whose label a model doubted count with the label they had.` : "";
    $("about").textContent = LISTS[state.kind][1] + old;
    classButtons();
  }

  function listButtons() {
    $("lists").replaceChildren(...Object.entries(LISTS).map(([kind, [name]]) => {
      const button = tag("button", { type: "button", ariaPressed: String(kind === state.kind) }, name);
      button.dataset.kind = kind;
      button.addEventListener("click", () => choose(kind));
      return button;
    }));
  }

  function classButtons() {
    const info = state.info;
    const image = state.current;
    $("classes").replaceChildren(...info.classes.map((name, k) => {
      const own = image && image.label === name;
      const guess = image && image.suggested === name && !own;
      const button = tag("button", { type: "button", class: `button${own ? " own" : ""}${guess ? " guess" : ""}` });
      button.append(name);
      if (k < 9) button.append(" ", tag("kbd", {}, String(k + 1)));
      button.setAttribute("aria-pressed", String(Boolean(own)));
      button.addEventListener("click", () => act("label", name));
      return button;
    }));
  }

  // The list.

  async function choose(kind) {
    state.kind = kind;
    state.position = 0;
    state.chosen.clear();
    listButtons();
    facts();
    await reload();
    $("grid").scrollTop = 0;
    await show(0);
  }

  function address(start, size) {
    const test = $("test").checked ? "&test=true" : "";
    return `/api/queue/${state.kind}?start=${start}&count=${size}${test}`;
  }

  async function reload() {
    const epoch = ++state.epoch;
    const first = Math.floor(Math.max(0, state.position) / PART);
    const found = await ask(address(first * PART, PART));
    if (epoch !== state.epoch) return;
    state.parts = new Map([[first, found.images]]);
    state.n = found.n;
    $("grid-title").textContent = `${LISTS[state.kind][0]}: ${count(found.n)}`;
    draw();
  }

  async function part(number) {
    if (state.parts.has(number)) return state.parts.get(number);
    const epoch = state.epoch;
    state.parts.set(number, null);
    const found = await ask(address(number * PART, PART));
    if (epoch === state.epoch) {
      state.parts.set(number, found.images);
      draw();
    }
    return found.images;
  }

  const at = (position) => {
    const some = state.parts.get(Math.floor(position / PART));
    return some ? some[position % PART] : undefined;
  };

  const cells = new Map();
  function draw() {
    const grid = $("grid");
    const columns = Math.max(2, Math.floor(grid.clientWidth / CELL.width));
    const width = grid.clientWidth / columns;
    $("space").style.height = `${Math.ceil(state.n / columns) * CELL.height}px`;
    const top = Math.max(0, Math.floor(grid.scrollTop / CELL.height) - 1);
    const end = Math.ceil((grid.scrollTop + grid.clientHeight) / CELL.height) + 1;
    const wanted = new Set();
    for (let i = top * columns; i < Math.min(end * columns, state.n); i += 1) {
      const image = at(i);
      if (image === undefined || image === null) {
        if (!state.parts.has(Math.floor(i / PART))) part(Math.floor(i / PART));
        continue;
      }
      wanted.add(i);
      let cell = cells.get(i);
      if (!cell || cell.row !== image.row) {
        if (cell) cell.node.remove();
        const picture = tag("img", { alt: "", loading: "lazy", src: thumb(image, "small") });
        const node = tag("div", { class: "cell", role: "option", id: `cell-${i}` }, picture, tag("span"));
        node.addEventListener("click", (event) => select(i, event.shiftKey || event.ctrlKey || event.metaKey));
        $("space").append(node);
        cell = { node, row: image.row };
        cells.set(i, cell);
      }
      const node = cell.node;
      node.style.left = `${(i % columns) * width}px`;
      node.style.top = `${Math.floor(i / columns) * CELL.height}px`;
      node.style.width = `${width}px`;
      node.style.height = `${CELL.height}px`;
      const words = image.excluded ? "excluded" : image.label ?? "no label";
      const doubt = image.suggested && image.suggested !== image.label && !image.checked ? ` → ${image.suggested}?` : "";
      node.lastChild.textContent = words + (image.checked ? " ✓" : doubt);
      node.setAttribute("aria-selected", String(state.chosen.has(image.row)));
      node.setAttribute("aria-label", `${image.path}, ${words}${doubt}`);
      node.classList.toggle("current", state.current !== null && state.current.row === image.row);
      node.classList.toggle("gone", image.excluded);
    }
    for (const [i, cell] of cells) {
      if (!wanted.has(i)) {
        cell.node.remove();
        cells.delete(i);
      }
    }
  }

  const thumb = (image, size) => `/thumb/${image.row}/${size}?${image.sha}`;

  function select(position, more) {
    const image = at(position);
    if (!image) return;
    if (more) {
      if (state.current) state.chosen.add(state.current.row);
      if (state.chosen.has(image.row)) state.chosen.delete(image.row);
      else state.chosen.add(image.row);
    } else state.chosen.clear();
    show(position);
  }

  async function show(position) {
    state.position = Math.max(0, Math.min(position, state.n - 1));
    if (!state.n) {
      state.current = null;
      present();
      return;
    }
    const some = await part(Math.floor(state.position / PART));
    const image = some && some[state.position % PART];
    if (!image) return;
    state.current = image;
    present();
    for (let ahead = 1; ahead <= 4; ahead += 1) {
      const next = at(state.position + ahead);
      if (next) new Image().src = thumb(next, "large");
    }
  }

  function present() {
    const image = state.current;
    const large = $("large");
    if (!image) {
      large.removeAttribute("src");
      large.alt = "";
      $("question").textContent = state.info && state.info.judged === 0
        ? "The head is being fitted; the list follows." : "Nothing is left in this list.";
      $("file").textContent = "";
    } else {
      large.src = thumb(image, "large");
      large.alt = image.path;
      const question = $("question");
      question.replaceChildren();
      if (image.label === null) {
        question.append("Not labelled");
        if (image.suggested) question.append("; looks like ", tag("b", {}, image.suggested), ` (${percent(image.p_suggested)})`);
      } else {
        question.append("Labelled ", tag("b", {}, image.label));
        if (image.p_label !== undefined) question.append(` (${percent(image.p_label)})`);
        if (image.suggested && image.suggested !== image.label) {
          question.append("; looks like ", tag("b", {}, image.suggested), ` (${percent(image.p_suggested)})`);
        }
      }
      const words = [image.path, image.split];
      if (image.checked) words.push("checked");
      if (image.excluded) words.push("excluded");
      if (image.group) words.push(`group ${image.group}`);
      if (image.given !== image.label && image.given !== null) words.push(`was ${image.given}`);
      for (const near of image.near.slice(0, 2)) words.push(`near ${near.path} (${near.likeness})`);
      $("file").textContent = words.join(" · ");
      if (image.split === "test") {
        $("file").append(" · ", tag("b", {}, "test image: correct it by what you see, not by what the head thinks"));
      }
    }
    $("stage").dataset.path = image ? image.path : "";
    if (state.info) classButtons();
    draw();
    drawMap();
  }

  // Actions.

  async function act(what, value = "") {
    if (state.busy || !state.current) return;
    const rows = state.chosen.size ? [...state.chosen] : [state.current.row];
    state.busy = true;
    try {
      const found = await ask("/api/act", { rows, what, value, who: who(), source: state.kind });
      const some = found.changed.length;
      const said = { label: value, confirm: "confirmed", skip: "skipped", exclude: "excluded", group: value ? `group ${value}` : "no group" };
      status.textContent = `${some > 1 ? `${some} images` : found.changed[0]?.path ?? ""}: ${said[what]}`;
      state.chosen.clear();
      await after(rows);
    } catch (error) {
      status.textContent = `Not saved: ${error.message}`;
    } finally {
      state.busy = false;
    }
    await poll().catch(() => {}); // the next round says it if the server does not answer
  }

  // The list has changed: go to what now stands where the image was, or behind it if it stayed.
  async function after(rows) {
    const was = state.current;
    await reload();
    const now = await part(Math.floor(state.position / PART));
    const same = now && now[state.position % PART];
    const stays = same && was && same.row === was.row && rows.includes(same.row);
    await show(stays ? state.position + 1 : state.position);
  }

  async function undo() {
    if (state.busy) return;
    state.busy = true;
    try {
      const found = await ask("/api/undo", { who: who() });
      status.textContent = `Undone: ${found.changed.map((one) => one.path).slice(0, 3).join(", ")}`;
      await reload();
      if (found.changed.length) {
        state.current = found.changed[0];
        present();
      }
      await poll();
    } catch (error) {
      status.textContent = error.message;
    } finally {
      state.busy = false;
    }
  }

  function question(text) {
    $("asked").textContent = text;
    $("answer").value = "";
    const dialog = $("asking");
    dialog.returnValue = "no";
    dialog.showModal();
    $("answer").focus();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => {
        resolve(dialog.returnValue === "yes" ? $("answer").value.trim() : null);
      }, { once: true });
    });
  }

  async function perform(what) {
    if (what === "undo") return undo();
    if (what === "new") {
      const name = await question("Name of the new class");
      if (name) await act("label", name);
      return undefined;
    }
    if (what === "group") {
      const name = await question("Name of the group (images of one thing); empty: none");
      if (name !== null) await act("group", name);
      return undefined;
    }
    return act(what);
  }

  const who = () => $("who").value.trim() || "anonymous";

  // The map.

  const map = $("map");
  let colours = [];
  function readColours() {
    const style = getComputedStyle(document.documentElement);
    colours = Array.from({ length: 8 }, (_, k) => style.getPropertyValue(`--c${k + 1}`).trim());
  }

  async function columns() {
    const answer = await fetch("/api/columns");
    if (!answer.ok) return;
    const data = await answer.arrayBuffer();
    const n = data.byteLength / 13;
    state.columns = {
      n, xy: new Float32Array(data, 0, 2 * n), labels: new Int16Array(data, 8 * n, n),
      guess: new Int16Array(data, 10 * n, n), flags: new Uint8Array(data, 12 * n, n),
    };
    const names = state.info.classes.slice(0, 12);
    $("legend").replaceChildren(...names.map((name, k) => {
      const mark = tag("i");
      mark.style.setProperty("--swatch", colours[k % 8]);
      return tag("li", {}, mark, `${name} ${count(state.info.counts[k] || 0)}`);
    }));
    drawMap();
  }

  const edge = 12;
  function drawMap() {
    const known = state.columns;
    const context = map.getContext("2d");
    const size = map.width;
    context.clearRect(0, 0, size, size);
    if (!known) return;
    const scale = size - 2 * edge;
    const dot = known.n > 20000 ? 2 : known.n > 3000 ? 3 : 5;
    for (const suspects of [false, true]) {
      for (let k = -1; k < Math.max(8, state.info.classes.length); k += 1) {
        context.fillStyle = k < 0 ? colours[7] : colours[k % 8];
        for (let i = 0; i < known.n; i += 1) {
          if (known.labels[i] !== k || known.flags[i] & 2) continue;
          const suspect = (known.flags[i] & 9) === 8;
          if (suspect !== suspects) continue;
          const x = edge + scale * known.xy[2 * i];
          const y = edge + scale * (1 - known.xy[2 * i + 1]);
          const side = suspect ? dot + 3 : dot;
          context.globalAlpha = suspect ? 1 : 0.55;
          context.fillRect(x - side / 2, y - side / 2, side, side);
        }
      }
    }
    context.globalAlpha = 1;
    if (state.current && state.current.row < known.n) {
      const i = state.current.row;
      context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
      context.lineWidth = 2.5;
      context.beginPath();
      context.arc(edge + scale * known.xy[2 * i], edge + scale * (1 - known.xy[2 * i + 1]), 9, 0, 7);
      context.stroke();
    }
  }

  map.addEventListener("click", async (event) => {
    const known = state.columns;
    if (!known) return;
    const box = map.getBoundingClientRect();
    const scale = map.width - 2 * edge;
    const x = ((event.clientX - box.left) * map.width / box.width - edge) / scale;
    const y = 1 - ((event.clientY - box.top) * map.height / box.height - edge) / scale;
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < known.n; i += 1) {
      const d = (known.xy[2 * i] - x) ** 2 + (known.xy[2 * i + 1] - y) ** 2;
      if (d < least && !(known.flags[i] & 2)) { least = d; best = i; }
    }
    if (best < 0) return;
    const found = await ask(`/api/images?rows=${best}`);
    state.current = found.images[0];
    state.chosen.clear();
    present();
  });

  // Following: other people's corrections, and the heads.

  let last = "";
  let drawn = 0;
  async function poll() {
    const info = await ask("/api/status");
    const key = `${info.version} ${info.judged}`;
    state.info = info;
    facts();
    if (key === last) return;
    last = key;
    if (!state.busy) {
      await reload();
      if (!state.current && state.n) await show(0);
    }
    const now = Date.now();
    if (info.judged === info.version || now - drawn > 3000) {
      drawn = now;
      await columns();
    }
  }

  async function follow() {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, document.hidden ? 5000 : 1000));
      try {
        await poll();
      } catch (error) {
        status.textContent = `The server does not answer: ${error.message}`;
      }
    }
  }

  // New images.

  async function add(files) {
    const images = [...files];
    for (let start = 0; start < images.length; start += 16) {
      const form = new FormData();
      for (const file of images.slice(start, start + 16)) form.append("images", file, file.name || "image");
      status.textContent = `Adding ${Math.min(start + 16, images.length)} of ${images.length} …`;
      const answer = await fetch("/api/new", { method: "POST", body: form });
      const found = await answer.json().catch(() => ({ error: `HTTP ${answer.status}` }));
      if (!answer.ok) status.textContent = `Not added: ${found.error}`;
      else status.textContent = `${found.rows.length} new images${found.rejects.length ? `; not used: ${found.rejects[0]}` : ""}`;
    }
    await poll();
  }

  $("files").addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    add(event.dataTransfer.files);
  });

  // Keys.

  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, dialog") || event.altKey) return;
    if (event.ctrlKey || event.metaKey) {
      if (event.key === "z") { event.preventDefault(); undo(); }
      return;
    }
    const onButton = event.target.closest("button, a, label");
    const columnsNow = Math.max(2, Math.floor($("grid").clientWidth / CELL.width));
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columnsNow, ArrowUp: -columnsNow };
    const number = Number(event.key);
    if (number >= 1 && number <= 9 && state.info && number <= state.info.classes.length) {
      act("label", state.info.classes[number - 1]);
    } else if (event.key === "Enter" && !onButton) act("confirm");
    else if (event.key === "s") act("skip");
    else if (event.key === "x") act("exclude");
    else if (event.key === "n") { event.preventDefault(); perform("new"); }
    else if (event.key === "g") { event.preventDefault(); perform("group"); }
    else if (event.key === "u") undo();
    else if (event.key in steps) {
      event.preventDefault();
      const next = Math.max(0, Math.min(state.n - 1, state.position + steps[event.key]));
      if (event.shiftKey) select(next, true);
      else select(next, false);
      const top = Math.floor(next / columnsNow) * CELL.height;
      const grid = $("grid");
      if (top < grid.scrollTop || top + CELL.height > grid.scrollTop + grid.clientHeight) grid.scrollTop = top;
    } else return;
    if (event.key !== "Enter") event.preventDefault();
  });
  document.querySelectorAll("[data-do]").forEach((button) => {
    button.addEventListener("click", () => perform(button.dataset.do));
  });
  $("grid").addEventListener("scroll", () => requestAnimationFrame(draw));
  new ResizeObserver(() => draw()).observe($("grid"));
  $("test").addEventListener("change", () => choose(state.kind));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); drawMap(); });
  try {
    $("who").value = localStorage.getItem("who") || "";
    $("who").addEventListener("change", () => localStorage.setItem("who", $("who").value));
  } catch { /* storage may be forbidden */ }

  (async () => {
    readColours();
    listButtons();
    state.info = await ask("/api/status");
    facts();
    await choose("doubtful");
    await columns();
    follow();
  })();
})();
