/* The embedding explorer: a map of a run's images, stage by stage. Reads what
   reprolib/report/explorer.py packed into the page; needs no network and no library. */
"use strict";
(() => {
  const DOT = 2.6, CROSS = 3.2, REACH = 24, MOVE = 450; // pixels; milliseconds of a change of stage
  const LABELLED = 24; // more clusters than these are not named on the map
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const count = (n) => n.toLocaleString("en");

  const unpack = (text) =>
    new Uint16Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  class Explorer {
    constructor(figure, data) {
      Object.assign(this, { figure, data, stage: data.stages.length - 1, turn: 0 });
      this.truth = unpack(data.truth);
      this.places = unpack(data.images.places);
      this.n = this.truth.length;
      this.stages = data.stages.map((s) => ({
        ...s, xyz: unpack(s.xyz), clusters: unpack(s.clusters), near: unpack(s.near),
      }));
      for (const s of this.stages) {
        s.sizes = new Array(s.ids.length).fill(0);
        s.clusters.forEach((c) => s.sizes[c]++);
      }
      this.from = this.at = this.coordinates();
      this.current = Math.max(this.truth.findIndex((_, i) => !this.right(i)), 0); // a mistake, if there is one
      this.build();
      this.goTo(this.stage);
    }

    /* ---- what is known of an image ---- */
    name(of) { return of < 0 ? "no class" : this.data.names[of]; }
    stands(i, s = this.stages[this.stage]) { return s.stands[s.clusters[i]]; }
    right(i) { return this.stands(i) === this.truth[i]; }
    seen(i) { return !this.only.checked || !this.right(i); }

    tells(i) {
      const s = this.stages[this.stage], c = s.clusters[i], size = s.sizes[c];
      return {
        image: `Image ${count(this.data.numbers[i])}`,
        truth: `Class ${this.name(this.truth[i])}`,
        cluster: `Cluster ${s.ids[c]} stands for ${this.name(s.stands[c])}`,
        size: `${count(size)} of the ${count(this.n)} images here`,
      };
    }

    /* ---- the elements ---- */
    build() {
      const { data } = this;
      const last = this.stages.length - 1;
      this.slider = make("input", { type: "range", min: 0, max: last, step: 1, "aria-label": "Stage of the run" });
      this.slider.value = last;
      this.stageName = make("output");
      this.turner = make("input", { type: "range", min: -180, max: 180, step: 5, "aria-label": "Turn the map, degrees" });
      this.turner.value = 0;
      this.only = make("input", { type: "checkbox" });
      const bar = make("div", { class: "explorer-bar" },
        make("label", { class: "explorer-stage" }, make("span", {}, "Stage"), this.slider, this.stageName),
        make("label", {}, make("span", {}, "Turn"), this.turner),
        make("label", {}, this.only, make("span", {}, "mistakes only")));
      if (!last) bar.firstChild.hidden = true;

      this.canvas = make("canvas", {
        tabindex: 0, role: "application", "aria-roledescription": "map of images",
        "aria-label": `${data.title}: ${count(this.n)} images. Arrow keys go to the next image in that direction, ` +
          "Enter to the nearest neighbour, Page Up and Page Down change the stage.",
      });
      this.picture = this.thumb(112);
      this.text = make("div", { class: "explorer-text" });
      this.near = make("div", { class: "explorer-near", role: "group", "aria-label": "Nearest neighbours" });
      const panel = make("div", { class: "explorer-panel" }, this.picture, this.text, this.near);
      this.live = make("p", { class: "explorer-live", "aria-live": "polite" });
      this.caption = make("figcaption");
      this.figure.replaceChildren(bar, make("div", { class: "explorer-body" }, this.canvas, panel), this.caption, this.live);
      this.figure.classList.add("explorer-ready");
      this.listen();
    }

    thumb(size) {
      const span = make("span", { class: `explorer-thumb${this.data.images.ink ? " explorer-ink" : ""}` });
      span.size = size;
      return span;
    }

    show(span, i) {
      const { file, columns, width, height } = this.data.images, w = span.size, h = (w * height) / width;
      const column = this.places[i] % columns, row = Math.floor(this.places[i] / columns);
      const root = document.documentElement.dataset.content_root || "";
      const url = file.startsWith("data:") ? file : `${root}_static/${file}`;
      Object.assign(span.style, {
        width: `${w}px`, height: `${h}px`, backgroundImage: `url("${url}")`,
        backgroundSize: `${columns * w}px auto`, backgroundPosition: `${-column * w}px ${-row * h}px`,
      });
    }

    /* ---- what a reader does ---- */
    listen() {
      const { canvas } = this;
      const under = (event) => {
        const box = canvas.getBoundingClientRect();
        return this.nearest(event.clientX - box.left, event.clientY - box.top);
      };
      canvas.addEventListener("pointermove", (event) => {
        if (event.pointerType === "mouse" && !this.pinned) this.select(under(event));
      });
      canvas.addEventListener("click", (event) => {
        const i = under(event);
        this.pinned = i >= 0;
        this.select(i);
      });
      canvas.addEventListener("keydown", (event) => this.key(event));
      this.slider.addEventListener("input", () => this.goTo(Number(this.slider.value)));
      this.turner.addEventListener("input", () => {
        this.turn = (Number(this.turner.value) * Math.PI) / 180;
        this.from = this.at = this.coordinates();
        this.draw();
      });
      this.only.addEventListener("change", () => this.draw());
      new ResizeObserver(() => this.draw()).observe(canvas);
      new MutationObserver(() => this.draw()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    }

    key(event) {
      const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
      const stages = { PageUp: -1, PageDown: 1 };
      if (event.key in ways) this.select(this.beyond(...ways[event.key]), true);
      else if (event.key === "Enter") this.select(this.neighbours(this.current)[0], true);
      else if (event.key in stages) {
        const stage = Math.min(Math.max(this.stage + stages[event.key], 0), this.stages.length - 1);
        this.slider.value = stage;
        this.goTo(stage);
      } else if (event.key === "Escape") this.pinned = false;
      else return;
      if (event.key !== "Escape") this.pinned = true;
      event.preventDefault();
    }

    neighbours(i) {
      const k = this.data.neighbours;
      return this.stages[this.stage].near.subarray(i * k, (i + 1) * k);
    }

    nearest(x, y) {
      let best = -1, least = REACH ** 2;
      for (let i = 0; i < this.n; i++) {
        const [px, py] = this.pixel(i), far = (px - x) ** 2 + (py - y) ** 2;
        if (far < least && this.seen(i)) [best, least] = [i, far];
      }
      return best;
    }

    /* the nearest image within 45 degrees of a direction, or this one */
    beyond(dx, dy) {
      const [x, y] = this.pixel(this.current);
      let best = this.current, least = Infinity;
      for (let i = 0; i < this.n; i++) {
        if (!this.seen(i)) continue;
        const [px, py] = this.pixel(i), along = (px - x) * dx + (py - y) * dy;
        const aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx), far = along + 2 * aside;
        if (along > 0 && aside <= along && far < least) [best, least] = [i, far];
      }
      return best;
    }

    select(i, aloud = false) {
      if (i < 0 || (i === this.current && !aloud)) return;
      this.current = i;
      this.panel(aloud);
      this.draw();
    }

    goTo(stage) {
      this.stage = stage;
      const s = this.stages[stage], left = s.ids.length <= new Set(this.truth).size;
      this.stageName.textContent = s.name;
      this.slider.setAttribute("aria-valuetext", s.name);
      const share = s.share === null ? "" : ` (${Math.round(100 * s.share)} % of the variance)`;
      this.caption.textContent =
        "Point at an image, tap it, or use the arrow keys; a click holds it, Escape lets go. " +
        `${count(this.n)} images in three principal components${share}, ${s.name}. Colour${left ? " and label" : ""}: ` +
        `the class that the image's cluster stands for${left ? "" : ", the most frequent one in it"}. ×: an image of another class.`;
      this.from = this.at;
      this.goal = this.coordinates();
      this.panel(true);
      this.animate();
    }

    panel(aloud) {
      const i = this.current, told = this.tells(i);
      this.show(this.picture, i);
      this.picture.classList.toggle("explorer-wrong", !this.right(i));
      const strong = make("strong", {}, told.truth);
      this.text.replaceChildren(make("span", {}, told.image), strong, make("span", {}, `${told.cluster} ${this.right(i) ? "✓" : "✗"}`), make("small", {}, told.size));
      const near = [...this.neighbours(i)];
      this.near.replaceChildren(...near.map((j) => {
        const span = this.thumb(36), same = this.truth[j] === this.truth[i];
        this.show(span, j);
        const label = make("span", {}, this.name(this.truth[j]));
        const button = make("button", { type: "button", "aria-label": `Neighbour of class ${this.name(this.truth[j])}` }, span, label);
        button.classList.toggle("explorer-other", !same);
        button.addEventListener("click", () => { this.pinned = true; this.select(j, true); });
        return button;
      }));
      if (aloud) {
        const classes = near.map((j) => this.name(this.truth[j])).join(", ");
        this.live.textContent =
          `${this.stages[this.stage].name}. ${told.image}, ${told.truth.toLowerCase()}. ${told.cluster}: ` +
          `${this.right(i) ? "right" : "wrong"}. Nearest neighbours: ${classes}.`;
      }
    }

    /* ---- where the points are: the map as large as -1 to 1 allows ---- */
    coordinates() {
      const { xyz } = this.stages[this.stage], at = new Float32Array(2 * this.n);
      const cos = Math.cos(this.turn), sin = Math.sin(this.turn);
      const low = [Infinity, Infinity], high = [-Infinity, -Infinity];
      for (let i = 0; i < this.n; i++) {
        const [x, y, z] = xyz.subarray(3 * i, 3 * i + 3);
        [x * cos + z * sin, -y].forEach((value, d) => {
          at[2 * i + d] = value;
          low[d] = Math.min(low[d], value);
          high[d] = Math.max(high[d], value);
        });
      }
      const half = Math.max(high[0] - low[0], high[1] - low[1]) / 2 || 1;
      return at.map((value, k) => (value - (low[k % 2] + high[k % 2]) / 2) / half);
    }

    pixel(i) {
      const side = Math.min(this.canvas.clientWidth, this.canvas.clientHeight) / 2 - 8;
      return [this.canvas.clientWidth / 2 + this.at[2 * i] * side, this.canvas.clientHeight / 2 + this.at[2 * i + 1] * side];
    }

    animate() {
      cancelAnimationFrame(this.frame);
      const start = performance.now(), { from, goal } = this;
      const step = (now) => {
        const t = still.matches ? 1 : Math.min((now - start) / MOVE, 1), eased = t * t * (3 - 2 * t);
        this.at = from.map((value, d) => value + (goal[d] - value) * eased);
        this.draw();
        if (t < 1) this.frame = requestAnimationFrame(step);
      };
      step(start);
    }

    /* ---- the map ---- */
    draw() {
      const { canvas } = this, ratio = devicePixelRatio || 1;
      const [width, height] = [canvas.clientWidth, canvas.clientHeight];
      if (!width) return;
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      const pen = canvas.getContext("2d"), style = getComputedStyle(this.figure);
      const [ink, paper] = [style.color, style.backgroundColor];
      const dark = document.documentElement.dataset.theme === "dark";
      const s = this.stages[this.stage], { palette } = this.data;
      const colour = (of) => {
        const found = of < 0 ? "#9c6b3f" : palette[of % palette.length];
        return dark && found === "#000000" ? "#f2f2f2" : found;
      };
      pen.scale(ratio, ratio);
      pen.lineCap = "round";
      const edge = dark ? "rgba(255,255,255,.3)" : "rgba(0,0,0,.3)";
      for (let i = 0; i < this.n; i++) {
        if (!this.seen(i)) continue;
        const [x, y] = this.pixel(i), wrong = !this.right(i);
        pen.beginPath();
        if (wrong) {
          pen.moveTo(x - CROSS, y - CROSS); pen.lineTo(x + CROSS, y + CROSS);
          pen.moveTo(x + CROSS, y - CROSS); pen.lineTo(x - CROSS, y + CROSS);
          pen.strokeStyle = paper; pen.lineWidth = 3.6; pen.stroke();
          pen.strokeStyle = colour(s.stands[s.clusters[i]]); pen.lineWidth = 1.8; pen.stroke();
        } else {
          pen.arc(x, y, DOT, 0, 2 * Math.PI);
          pen.fillStyle = colour(s.stands[s.clusters[i]]); pen.fill();
          pen.strokeStyle = edge; pen.lineWidth = 0.5; pen.stroke();
        }
      }
      if (s.ids.length <= LABELLED) this.labels(pen, s, ink, paper);
      this.mark(pen, ink, paper);
    }

    labels(pen, s, ink, paper) {
      pen.font = "600 15px sans-serif";
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.lineJoin = "round";
      const middle = (values) => values.sort((a, b) => a - b)[values.length >> 1];
      s.ids.forEach((_, c) => {
        const inside = [];
        for (let i = 0; i < this.n; i++) if (s.clusters[i] === c) inside.push(this.pixel(i));
        const [x, y] = [0, 1].map((d) => middle(inside.map((p) => p[d])));
        pen.strokeStyle = paper; pen.lineWidth = 4; pen.strokeText(this.name(s.stands[c]), x, y);
        pen.fillStyle = ink; pen.fillText(this.name(s.stands[c]), x, y);
      });
    }

    mark(pen, ink, paper) {
      const [x, y] = this.pixel(this.current);
      pen.strokeStyle = ink;
      for (const j of this.neighbours(this.current)) {
        const [nx, ny] = this.pixel(j);
        pen.lineWidth = 1;
        pen.beginPath(); pen.moveTo(x, y); pen.lineTo(nx, ny); pen.stroke();
        pen.beginPath(); pen.arc(nx, ny, 4.5, 0, 2 * Math.PI); pen.stroke();
      }
      pen.beginPath(); pen.arc(x, y, 8, 0, 2 * Math.PI);
      pen.strokeStyle = paper; pen.lineWidth = 5; pen.stroke();
      pen.strokeStyle = ink; pen.lineWidth = 2; pen.stroke();
    }
  }

  const start = () => {
    for (const figure of document.querySelectorAll("figure.explorer:not(.explorer-ready)")) {
      const data = figure.querySelector('script[type="application/json"]');
      if (data) figure.explorer = new Explorer(figure, JSON.parse(data.textContent));
    }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
