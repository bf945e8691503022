"use strict";
// Sends images to /predict, a few at a time, and shows what comes back. Fetches nothing else.
(() => {
  const $ = (id) => document.getElementById(id);
  const TOGETHER = 8;
  const SHOWN = 5;
  const status = $("status");
  let runs = [];
  const queue = [];
  let busy = false;
  let done = 0;
  let failed = 0;

  const element = (name, properties = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key === "class") made.className = value;
      else if (key in made) made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children.filter((one) => one !== null && one !== undefined));
    return made;
  };
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const percent = (p) => `${(100 * p).toFixed(1)} %`;

  async function begin() {
    for (;;) {
      try {
        const answer = await fetch("/runs");
        if (answer.ok) {
          runs = (await answer.json()).runs;
          break;
        }
        status.textContent = "The server is loading the model …";
      } catch {
        status.textContent = "The server does not answer; trying again …";
      }
      await wait(1000);
    }
    status.textContent = "";
    $("run").replaceChildren(...runs.map((one) => new Option(one.name, one.name)));
    $("choice").hidden = runs.length < 2;
    describe();
  }

  function describe() {
    const run = runs.find((one) => one.name === $("run").value) || runs[0];
    $("engine").textContent = `${run.run} · ${run.engine}`;
    const names = run.classes.slice(0, 12).join(", ");
    const more = run.classes.length > 12 ? `, … (${run.classes.length} classes)` : "";
    $("classes").textContent = `Classes: ${names}${more}.`;
    $("notes").replaceChildren(...run.notes.map((text) => element("li", {}, text)));
  }

  function add(files) {
    const images = [...files];
    if (!images.length) return;
    for (const file of images) {
      const holder = element("article", { class: "result" });
      const shown = element("div", { class: "shown" });
      const text = element("div", {}, element("h2", {}, "…"), named(file));
      holder.append(shown, text);
      const image = element("img", { alt: `Your image ${file.name}` });
      image.addEventListener("error", () => {
        shown.replaceChildren(element("div", { class: "absent" }, "no preview"));
      });
      image.src = URL.createObjectURL(file);
      image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
      shown.append(image);
      queue.push({ file, text, run: $("run").value });
      $("results").prepend(holder);
    }
    work();
  }

  const named = (file) => element("p", { class: "file" }, file.name);

  async function work() {
    if (busy) return;
    busy = true;
    done = failed = 0;
    while (queue.length) {
      const run = queue[0].run;
      const some = [];
      while (some.length < TOGETHER && queue.length && queue[0].run === run) {
        some.push(queue.shift());
      }
      status.textContent = `${done} done, ${some.length + queue.length} to go …`;
      await send(some, run);
    }
    busy = false;
    const bad = failed ? `; ${failed} cannot be used` : "";
    status.textContent = `${done} ${done === 1 ? "image" : "images"} classified${bad}.`;
  }

  async function send(some, run) {
    const form = new FormData();
    for (const one of some) form.append("images", one.file, one.file.name || "image");
    for (;;) {
      let answer;
      try {
        answer = await fetch(`/predict?${new URLSearchParams({ run, nearest: 5 })}`, {
          method: "POST", body: form,
        });
      } catch {
        for (const one of some) refuse(one, "The server did not answer.");
        return;
      }
      if (answer.status === 503) {
        const seconds = Number(answer.headers.get("Retry-After")) || 2;
        status.textContent = `The server is busy; trying again in ${seconds} s …`;
        await wait(1000 * seconds);
        continue;
      }
      const body = await answer.json().catch(() => ({ error: `HTTP ${answer.status}` }));
      if (!answer.ok && some.length > 1) {  // so that each says what is wrong with it
        for (const one of some) await send([one], run);
        return;
      }
      some.forEach((one, at) => {
        if (!answer.ok) refuse(one, body.error);
        else if (body.predictions[at].error) refuse(one, body.predictions[at].error);
        else show(one, body.predictions[at], body.classes);
      });
      return;
    }
  }

  function refuse(one, why) {
    failed += 1;
    one.text.replaceChildren(
      element("h2", {}, "Cannot be used"), named(one.file),
      element("p", { class: "warning" }, why),
    );
  }

  function show(one, found, classes) {
    done += 1;
    const order = [...classes].sort((a, b) => found.probabilities[b] - found.probabilities[a]);
    const bars = element("dl", { class: "bars" });
    order.slice(0, SHOWN).forEach((name, at) => {
      const fill = element("span");
      fill.style.setProperty("--share", found.probabilities[name]);
      bars.append(
        element("dt", {}, name),
        element("dd", { class: at ? "bar" : "bar first", ariaHidden: "true" }, fill),
        element("dd", { class: "value" }, percent(found.probabilities[name])),
      );
    });
    const parts = [
      element("h2", {}, found.predicted ?? "No class named"), named(one.file), bars,
    ];
    if (found.unlike) {
      parts.push(element("p", { class: "warning" }, element("b", {}, "Unlike the training images. "),
        "It is farther from every one of them than 99 % of them are from another; the class "
        + "means little."));
    }
    if (found.set) {
      parts.push(element("p", {}, `Prediction set: ${found.set.join(", ") || "empty"}`));
    }
    const why = element("button", { type: "button", class: "button plain-button" }, "Where is it seen?");
    why.addEventListener("click", () => explain(one, found.predicted, why));
    parts.push(element("p", {}, why));
    if (found.nearest && found.nearest.length) {
      parts.push(element("h3", {}, "Nearest training images"));
      parts.push(element("ul", { class: "nearest" }, ...found.nearest.map((near) => element("li", {},
        element("figure", {},
          near.picture ? element("img", { src: near.picture, alt: "", loading: "lazy" })
            : element("div", { class: "absent" }, "no picture"),
          element("figcaption", {}, element("b", {}, near.class),
            `distance ${near.distance.toFixed(2)}`))))));
    }
    one.text.replaceChildren(...parts);
  }

  async function explain(one, target, button) {
    button.disabled = true;
    button.textContent = "…";
    try {
      const answer = await fetch(`/explain?${new URLSearchParams({ run: one.run, target: target ?? "" })}`, {
        method: "POST", body: one.file, headers: { "Content-Type": "application/octet-stream" },
      });
      if (!answer.ok) throw new Error((await answer.json()).error);
      const image = element("img", {
        class: "heat", alt: `Regions that speak for ${target}, bright`, src: URL.createObjectURL(await answer.blob()),
      });
      image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
      button.parentElement.replaceChildren(image, element("span", { class: "note" },
        `Bright regions speak for ${target}: ${answer.headers.get("x-method")}.`));
    } catch (error) {
      button.replaceWith(element("span", { class: "note" }, `No map: ${error.message}`));
    }
  }

  $("files").addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = "";
  });
  $("run").addEventListener("change", describe);
  $("form").addEventListener("submit", (event) => event.preventDefault());
  const drop = $("drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    add(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => add(event.clipboardData.files));

  // The camera: its pictures go the way of files.
  const shooting = $("shooting");
  const video = $("video");
  $("camera").hidden = !(navigator.mediaDevices && navigator.mediaDevices.getUserMedia);
  $("camera").addEventListener("click", async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "environment" },
      });
      shooting.showModal();
    } catch (error) {
      status.textContent = `No camera: ${error.message}`;
    }
  });
  $("shoot").addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      if (blob) add([new File([blob], "camera.jpg", { type: "image/jpeg" })]);
    }, "image/jpeg", 0.92);
    shooting.close();
  });
  $("close").addEventListener("click", () => shooting.close());
  shooting.addEventListener("close", () => {
    for (const track of video.srcObject ? video.srcObject.getTracks() : []) track.stop();
    video.srcObject = null;
  });

  begin();
})();
