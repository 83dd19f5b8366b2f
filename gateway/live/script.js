"use strict";
(() => {
  const length = 120; // looks that a spark has
  const patience = 10000; // milliseconds without a look

  // morph makes a node what another one is, and leaves alone what is the same: a
  // selection, a place that was scrolled to.
  function morph(a, b) {
    if (a.isEqualNode(b)) return;
    if (a.nodeType !== b.nodeType || a.nodeName !== b.nodeName) return void a.replaceWith(b.cloneNode(true));
    if (a.nodeType === Node.TEXT_NODE) return void (a.data = b.data);
    for (const { name } of [...a.attributes]) if (!b.hasAttribute(name)) a.removeAttribute(name);
    for (const { name, value } of [...b.attributes]) if (a.getAttribute(name) !== value) a.setAttribute(name, value);
    if (a.classList.contains("spark")) return;
    const from = [...b.childNodes];
    if (a.classList.contains("events")) return events(a, b);
    [...a.childNodes].slice(from.length).forEach((n) => n.remove());
    from.forEach((n, i) => (a.childNodes[i] ? morph(a.childNodes[i], n) : a.append(n.cloneNode(true))));
  }

  // events puts new ones before the others, and takes the oldest away.
  function events(a, b) {
    const have = new Set([...a.children].map((n) => n.dataset.key));
    const keep = new Set([...b.children].map((n) => n.dataset.key));
    const first = a.firstElementChild;
    for (const n of [...b.children]) if (!have.has(n.dataset.key)) a.insertBefore(n.cloneNode(true), first);
    for (const n of [...a.children]) if (!keep.has(n.dataset.key)) n.remove();
  }

  function ago(since, now) {
    const s = Math.max(0, Math.round((now - since) / 1000));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} m ${s % 60} s`;
    if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} m`;
    return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  }

  function draw(svg, values) {
    const top = Math.max(...values, 1e-9);
    const at = (v, i) => `${length - values.length + i + 0.5} ${(23 - (22 * v) / top).toFixed(1)}`;
    const line = "M" + values.map(at).join("L");
    const area = `${line}L${length - 0.5} 24L${length - values.length + 0.5} 24Z`;
    const path = (d, kind) => {
      let p = svg.querySelector(kind ? "path.area" : "path:not(.area)");
      if (!p) {
        p = document.createElementNS(svg.namespaceURI, "path");
        if (kind) p.setAttribute("class", kind);
        svg.append(p);
      }
      p.setAttribute("d", d);
    };
    path(area, "area");
    path(line, "");
  }

  // watch keeps one element as its source says; there may be several on a page.
  function watch(root) {
    const history = new Map();
    let last = Date.now(), skew = 0;
    const seen = (at) => (root.dataset.seen = new Date(at).toISOString().slice(11, 19));
    const times = () => {
      const now = Date.now() + skew;
      for (const t of root.querySelectorAll("time.ago")) {
        t.title = t.dateTime;
        t.textContent = ago(Date.parse(t.dateTime), now);
      }
    };
    const section = (e) => {
      const { id, html } = JSON.parse(e.data);
      const a = root.querySelector(`[data-section="${id}"]`);
      if (!a) return; // of another version than the page
      const b = a.cloneNode(false);
      b.innerHTML = html; // of a template that escapes all that is not its own
      morph(a, b);
      times();
    };
    const tick = (e) => {
      last = Date.now();
      const at = Date.parse(JSON.parse(e.data));
      skew = at - last;
      seen(at);
      root.classList.remove("away");
      const there = new Set();
      for (const svg of root.querySelectorAll(".spark")) {
        const values = history.get(svg.dataset.key) ?? [];
        values.push(Number(svg.dataset.value));
        if (values.length > length) values.shift();
        history.set(svg.dataset.key, values);
        there.add(svg.dataset.key);
        draw(svg, values);
      }
      for (const key of history.keys()) if (!there.has(key)) history.delete(key);
      times();
    };
    let stream;
    const open = () => {
      stream?.close();
      stream = new EventSource(root.dataset.source);
      stream.addEventListener("section", section);
      stream.addEventListener("tick", tick);
      stream.addEventListener("error", () => root.classList.add("away"));
    };
    seen(last);
    open();
    setInterval(() => {
      if (Date.now() - last < patience) return;
      root.classList.add("away");
      if (stream.readyState === EventSource.CLOSED) open();
    }, 3000);
    times();
  }

  document.documentElement.classList.add("scripted");
  document.querySelectorAll("[data-source]").forEach(watch);
})();
