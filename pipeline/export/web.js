// Classifies images in the browser. The arithmetic of crop and resize is that of the pipeline:
// whole-number filter weights, columns first, rounded to 8 bits, then rows.
"use strict";
(() => {
  const about = window.ABOUT;
  const $ = (id) => document.getElementById(id);
  const status = (text, wrong) => {
    $("status").textContent = text;
    $("status").className = wrong ? "wrong" : "";
  };

  async function unpacked(base64) {
    const binary = atob(base64);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  const filters = {
    box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
    bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
    bicubic: [2, (x) => {
      x = Math.abs(x);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
    }],
    lanczos: [3, (x) => {
      const sinc = (y) => (y === 0 ? 1 : Math.sin(y * Math.PI) / (y * Math.PI));
      return Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
    }],
  };

  // Whole-number weights of each output pixel: where they start, and the power of two in them.
  function weights(length, start, extent, inner) {
    const scale = extent / inner;
    if (about.interpolation === "nearest") {
      const rows = [];
      for (let i = 0; i < inner; i++) rows.push([Math.floor(start + (i + 0.5) * scale), [1]]);
      return { rows, power: 1 };
    }
    const [support, filter] = filters[about.interpolation];
    const wide = Math.max(1, scale);
    const reach = support * wide;
    const rows = [];
    let highest = -Infinity;
    for (let i = 0; i < inner; i++) {
      const centre = start + (i + 0.5) * scale;
      const low = Math.floor(Math.max(0, centre - reach));
      const high = Math.ceil(Math.min(length, centre + reach));
      const row = [];
      let sum = 0;
      for (let x = low; x < high; x++) {
        const w = filter((x - (centre - 0.5)) / wide);
        row.push(w);
        sum += w;
      }
      for (let j = 0; j < row.length; j++) {
        if (sum !== 0) row[j] /= sum;
        highest = Math.max(highest, row[j]);
      }
      rows.push([low, row]);
    }
    let bits = 0;
    while (bits < 21 && Math.floor(0.5 + highest * 2 ** (bits + 1)) < 32768) bits++;
    const power = 2 ** bits;
    for (const [, row] of rows)
      for (let j = 0; j < row.length; j++) {
        const scaled = row[j] * power;
        row[j] = scaled < 0 ? Math.ceil(scaled - 0.5) : Math.floor(scaled + 0.5);
      }
    return { rows, power };
  }

  const eightBits = (sum, power) => Math.min(255, Math.max(0, Math.floor((sum + power / 2) / power)));

  // RGBA pixels to RGB (inner height, inner width), as the resizer of the pipeline.
  function resized(data, width, height, box, innerWidth, innerHeight) {
    const down = weights(height, box[1], box[3], innerHeight);
    const across = weights(width, box[0], box[2], innerWidth);
    let first = width, last = 0;
    for (const [low, row] of across.rows) {
      first = Math.min(first, low);
      last = Math.max(last, low + row.length);
    }
    const columns = (last - first) * 3;
    const out = new Uint8Array(innerHeight * innerWidth * 3);
    const sums = new Float64Array(columns);
    const line = new Uint8Array(columns);
    for (let y = 0; y < innerHeight; y++) {
      const [low, row] = down.rows[y];
      sums.fill(0);
      for (let j = 0; j < row.length; j++) {
        const w = row[j];
        if (w === 0) continue;
        let at = ((low + j) * width + first) * 4;
        for (let c = 0; c < columns; c += 3, at += 4) {
          sums[c] += w * data[at];
          sums[c + 1] += w * data[at + 1];
          sums[c + 2] += w * data[at + 2];
        }
      }
      for (let c = 0; c < columns; c++) line[c] = eightBits(sums[c], down.power);
      for (let x = 0; x < innerWidth; x++) {
        const [left, part] = across.rows[x];
        let r = 0, g = 0, b = 0;
        let at = (left - first) * 3;
        for (let j = 0; j < part.length; j++, at += 3) {
          r += part[j] * line[at];
          g += part[j] * line[at + 1];
          b += part[j] * line[at + 2];
        }
        const to = (y * innerWidth + x) * 3;
        out[to] = eightBits(r, across.power);
        out[to + 1] = eightBits(g, across.power);
        out[to + 2] = eightBits(b, across.power);
      }
    }
    return out;
  }

  function rounded(x) { // half to even, as numpy and Python round
    const floor = Math.floor(x);
    if (x - floor !== 0.5) return Math.round(x);
    return floor % 2 === 0 ? floor : floor + 1;
  }

  // The network's square of an image, and the part of the image that it shows.
  function square(pixels) {
    const { width, height, data } = pixels, size = about.size;
    if (about.resize === "stretch") {
      const box = [0, 0, width, height];
      return { input: resized(data, width, height, box, size, size), box };
    }
    if (about.resize === "pad") {
      const scale = size / Math.max(width, height);
      const w = Math.max(1, rounded(width * scale)), h = Math.max(1, rounded(height * scale));
      const small = resized(data, width, height, [0, 0, width, height], w, h);
      const input = new Uint8Array(size * size * 3);
      for (let i = 0; i < input.length; i++) input[i] = about.colour[i % 3];
      const left = Math.floor((size - w) / 2), top = Math.floor((size - h) / 2);
      for (let y = 0; y < h; y++)
        input.set(small.subarray(y * w * 3, (y + 1) * w * 3), ((top + y) * size + left) * 3);
      const side = Math.max(width, height);
      return { input, box: [(width - side) / 2, (height - side) / 2, side, side] };
    }
    const side = Math.min(width, height) * about.crop_ratio;
    const box = [(width - side) / 2, (height - side) / 2, side, side];
    return { input: resized(data, width, height, box, size, size), box };
  }

  async function decoded(source) {
    const bitmap = await createImageBitmap(source, {
      colorSpaceConversion: "default", premultiplyAlpha: "none", imageOrientation: "from-image",
    });
    const canvas = document.createElement("canvas");
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff"; // transparency over white
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    return { canvas, pixels: context.getImageData(0, 0, canvas.width, canvas.height) };
  }

  let session, training;

  async function start() {
    if (typeof DecompressionStream === "undefined" || typeof WebAssembly === "undefined")
      throw new Error("this browser is too old: it needs WebAssembly and DecompressionStream");
    const { ort } = window;
    ort.env.logLevel = "error";
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.proxy = false;
    const script = new Blob([window.RUNTIME.script], { type: "text/javascript" });
    ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(script) };
    ort.env.wasm.wasmBinary = (await unpacked(window.RUNTIME.wasm)).buffer;
    session = await ort.InferenceSession.create(await unpacked(window.MODEL), {
      executionProviders: ["wasm"], graphOptimizationLevel: "all",
    });
    if (window.TRAINING) {
      const codes = new Int8Array((await unpacked(window.TRAINING.codes)).buffer);
      training = { ...window.TRAINING, codes };
    }
    window.MODEL = window.RUNTIME = window.TRAINING = null; // the text is not needed any more
    const blank = new ort.Tensor(
      "uint8", new Uint8Array(about.size * about.size * 3), [about.size, about.size, 3]);
    await session.run({ image: blank });
  }

  function distance(codes) {
    let best = Infinity;
    const d = codes.length;
    for (let i = 0; i < training.scales.length; i++) {
      const scale = training.scales[i];
      let sum = 0;
      for (let j = 0, at = i * d; j < d; j++, at++) {
        const gap = codes[j] - training.codes[at] * scale;
        sum += gap * gap;
      }
      best = Math.min(best, sum);
    }
    return Math.sqrt(best);
  }

  async function classify(source) {
    const { canvas, pixels } = await decoded(source);
    const { input, box } = square(pixels);
    const tensor = new window.ort.Tensor("uint8", input, [about.size, about.size, 3]);
    const found = await session.run({ image: tensor });
    const probabilities = Array.from(found.probabilities.data);
    const predicted = Number(found.class_index.data);
    const result = { canvas, box, probabilities, predicted };
    if (found.evidence) {
      const [, rows, columns] = found.evidence.dims;
      const n = rows * columns;
      const map = found.evidence.data.slice(predicted * n, (predicted + 1) * n);
      result.heat = { map, rows, columns };
    }
    if (training) {
      result.distance = distance(found.codes.data);
      result.unlike = result.distance > training.limit;
    }
    return result;
  }

  // The colours of make explain: matplotlib's inferno at 0, .2, .4, .6, .8 and 1.
  const inferno = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10],
    [252, 255, 164]];

  function heatCanvas(heat) {
    const canvas = document.createElement("canvas");
    canvas.width = heat.columns;
    canvas.height = heat.rows;
    const context = canvas.getContext("2d");
    const image = context.createImageData(heat.columns, heat.rows);
    const highest = Math.max(...heat.map, 1e-12);
    heat.map.forEach((value, i) => {
      const share = Math.max(0, value / highest);
      const at = Math.min(4, Math.floor(share * 5)), rest = share * 5 - at;
      const colour = inferno[at].map((one, c) => Math.round(one + rest * (inferno[at + 1][c] - one)));
      image.data.set([...colour, Math.round(191 * share ** 0.7)], i * 4);
    });
    context.putImageData(image, 0, 0);
    return canvas;
  }

  function drawn(target, result, withHeat) {
    const { canvas, box, heat } = result;
    const context = target.getContext("2d");
    const scale = target.width / canvas.width;
    context.drawImage(canvas, 0, 0, target.width, target.height);
    if (!withHeat || !heat) return;
    context.save();
    context.globalCompositeOperation = "saturation"; // grey, so that the colours are the map's
    context.fillStyle = "#808080";
    context.fillRect(0, 0, target.width, target.height);
    context.globalCompositeOperation = "source-over";
    context.beginPath();
    context.rect(0, 0, target.width, target.height);
    context.clip();
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(heatCanvas(heat), ...box.map((side) => side * scale));
    context.restore();
  }

  const made = (kind, text, name) => {
    const element = document.createElement(kind);
    if (text) element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const percent = (p) => `${(100 * p).toFixed(1)} %`;

  function shown(name, result) {
    const article = made("article");
    const best = about.classes[result.predicted];
    article.dataset.name = name;
    article.dataset.predicted = best;
    if (result.distance !== undefined) article.dataset.distance = result.distance;
    article.dataset.probabilities = JSON.stringify(result.probabilities);
    const figure = made("figure");
    const picture = made("canvas");
    const scale = Math.min(1, 720 / Math.max(result.canvas.width, result.canvas.height));
    picture.width = Math.max(1, Math.round(result.canvas.width * scale));
    picture.height = Math.max(1, Math.round(result.canvas.height * scale));
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", result.heat ? `${name}, regions for ${best} in colour` : name);
    drawn(picture, result, true);
    figure.append(picture, made("figcaption", name));
    article.append(made("h2", `${best}, ${percent(result.probabilities[result.predicted])}`), figure);
    if (result.unlike)
      article.append(made("p", "Unlike the training images: do not rely on this prediction.", "warning"));
    const table = made("table");
    const order = result.probabilities.map((p, k) => [p, k]).sort((a, b) => b[0] - a[0] || a[1] - b[1]);
    for (const [p, k] of order.slice(0, 6)) {
      const row = made("tr");
      const head = made("th", about.classes[k]);
      head.scope = "row";
      const share = made("td", "", "share");
      const track = made("div", "", "track");
      track.setAttribute("aria-hidden", "true");
      const bar = made("i");
      bar.style.width = `${100 * p}%`;
      track.append(bar);
      share.append(track);
      row.append(head, share, made("td", percent(p), "number"));
      table.append(row);
    }
    article.append(table);
    if (result.heat) {
      const button = made("button", "Hide the heat map", "plain");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      let on = true;
      button.addEventListener("click", () => {
        on = !on;
        button.textContent = on ? "Hide the heat map" : "Show the heat map";
        button.setAttribute("aria-pressed", String(on));
        drawn(picture, result, on);
      });
      article.append(made("p"), button);
    }
    $("results").prepend(article);
  }

  let queue = Promise.resolve();
  function take(files) {
    for (const file of files)
      queue = queue.then(async () => {
        const name = file.name || "pasted image";
        const began = performance.now();
        try {
          shown(name, await classify(file));
          status(`${name}: ${Math.round(performance.now() - began)} ms`);
        } catch (error) {
          status(`${name} cannot be used: ${error.message || error}`, true);
        }
      });
    return queue;
  }

  async function openCamera() {
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      $("video").srcObject = stream;
      await $("video").play();
      $("viewer").hidden = false;
      $("shoot").focus();
    } catch (error) {
      status(`The camera cannot be used: ${error.message || error}`, true);
    }
  }
  function closeCamera() {
    for (const track of $("video").srcObject?.getTracks() ?? []) track.stop();
    $("video").srcObject = null;
    $("viewer").hidden = true;
    $("camera").focus();
  }
  async function shoot() {
    const canvas = document.createElement("canvas");
    canvas.width = $("video").videoWidth;
    canvas.height = $("video").videoHeight;
    canvas.getContext("2d").drawImage($("video"), 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
    await take([new File([blob], "picture from the camera")]);
  }

  $("title").textContent = `Image classifier: ${about.data}`;
  document.title = $("title").textContent;
  $("about").textContent = `${about.classes.length} classes: ${about.classes.slice(0, 12).join(", ")}` +
    `${about.classes.length > 12 ? ", …" : ""}. ${about.what}.`;
  if (!navigator.mediaDevices?.getUserMedia) $("camera").hidden = true;
  $("files").addEventListener("change", (event) => {
    take([...event.target.files]).then(() => { event.target.value = ""; });
  });
  $("camera").addEventListener("click", openCamera);
  $("shoot").addEventListener("click", shoot);
  $("stop").addEventListener("click", closeCamera);
  for (const kind of ["dragover", "dragleave", "drop"])
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      $("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop") take([...event.dataTransfer.files]);
    });
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) take(files);
  });
  queue = start().then(
    () => { status("Ready."); document.body.dataset.ready = "yes"; },
    (error) => {
      status(`The model cannot be loaded: ${error.message || error}`, true);
      document.body.dataset.ready = "no";
      throw error;
    });
  queue.catch(() => {});
})();
