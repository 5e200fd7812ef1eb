// Asks both models through /api/ask and shows what they say while they say it. Writes text nodes only, never HTML.
(() => {
  const find = (query, root = document) => root.querySelector(query);
  const login = find("#login"), ask = find("#ask"), answers = find("#answers"), gallery = find("#gallery"), filing = find("#delete");
  const form = find("form", ask), entity = find("#entity"), question = find("#question"), go = find(".go"), state = find("output", form);
  const drop = find(".drop"), preview = find("img", drop), chooser = find("input[type=file]"), none = find(".none");
  let token = decodeURIComponent(location.hash.slice(1)) || sessionStorage.getItem("unsee") || "";
  let content = null;
  let chosen = {}; // {picture: number} of the gallery, or {upload: base64}
  let suggested = ""; // the ready question that stands in the field, replaced by the next one
  let named = ""; // likewise the name in the form for deletion
  history.replaceState(null, "", location.pathname);

  function make(tag, text, className) {
    const node = document.createElement(tag);
    if (text) node.textContent = text;
    if (className) node.className = className;
    return node;
  }

  function call(path, values) {
    const headers = { Authorization: `Bearer ${token}` };
    if (!values) return fetch(path, { headers });
    return fetch(path, { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(values) });
  }

  async function open() {
    const reply = token ? await call("/api/content") : { status: 401 };
    login.hidden = reply.status !== 401;
    if (reply.status === 401) {
      find(".bad", login).textContent = token ? "The token is wrong." : "";
      find("#token").focus();
      return;
    }
    content = await reply.json();
    if (!reply.ok) {
      state.textContent = content.error;
      return;
    }
    sessionStorage.setItem("unsee", token);
    document.title = `${content.title} · unsee`;
    find("#title").textContent = content.title;
    question.maxLength = content.longest;
    ask.hidden = false;
    filing.hidden = !content.filing;
    fillEntities();
    fillGallery();
    pick({});
  }

  function fillEntities() {
    for (const [label, forgotten] of [["to forget", true], ["others", false]]) {
      const group = make("optgroup");
      group.label = label;
      content.entities.forEach((row, place) => {
        if (row.forgotten !== forgotten) return;
        const option = make("option", row.name);
        option.value = String(place);
        group.append(option);
      });
      if (group.children.length) entity.append(group);
    }
  }

  function fillGallery() {
    gallery.hidden = !content.pictures.length;
    const all = content.rows < content.total ? ` (from ${content.rows} of ${content.total} rows)` : "";
    find("summary", gallery).textContent = `Pictures of the run${all}`;
    gallery.open = content.pictures.length > 0;
    const select = find("select", gallery), list = find("ul", gallery);
    for (const role of new Set(content.pictures.map((row) => row.role))) {
      const option = make("option", role);
      option.value = role;
      select.append(option);
    }
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        seen.unobserve(entry.target);
        load(entry.target);
      }
    });
    content.pictures.forEach((row, place) => {
      const item = make("li"), button = make("button"), image = make("img");
      button.type = "button";
      button.title = row.role;
      button.setAttribute("aria-pressed", "false");
      image.alt = "";
      image.dataset.place = place;
      button.append(image, make("span", row.entity < 0 ? row.role : content.entities[row.entity].name));
      button.addEventListener("click", () => pick({ picture: place }));
      item.dataset.role = row.role;
      item.append(button);
      list.append(item);
      seen.observe(image);
    });
    select.addEventListener("change", () => {
      for (const item of list.children) item.hidden = Boolean(select.value) && item.dataset.role !== select.value;
    });
  }

  async function load(image) {
    const { place } = image.dataset;
    const reply = await call(`/api/picture/${place}`);
    const picture = reply.ok && (await reply.blob());
    if (picture && image.dataset.place === place) image.src = URL.createObjectURL(picture); // no other was picked meanwhile
  }

  function pick(what, source = "") {
    if (chosen.picture !== undefined) entity.value = ""; // who was in the picture before is not in the next
    chosen = what;
    const row = content.pictures[what.picture];
    gallery.querySelectorAll("li button").forEach((button, place) => button.setAttribute("aria-pressed", String(place === what.picture)));
    entity.disabled = Boolean(row);
    if (row) entity.value = row.entity < 0 ? "" : String(row.entity);
    preview.hidden = !row && !what.upload;
    none.hidden = preview.hidden;
    drop.classList.toggle("full", !preview.hidden);
    find("span", drop).hidden = !preview.hidden;
    delete preview.dataset.place;
    if (what.upload) preview.src = source;
    if (row) {
      preview.removeAttribute("src");
      preview.dataset.place = what.picture;
      load(preview);
    }
    suggest();
  }

  function suggest() {
    const person = content.entities[entity.value];
    const row = content.pictures[chosen.picture];
    const name = find("#name");
    if (!name.value || name.value === named) name.value = named = person ? person.name : "";
    const ready = row ? row.questions : chosen.upload || !person ? content.ready : person.questions;
    find(".ready").replaceChildren(...ready.map((text) => {
      const button = make("button", text);
      button.type = "button";
      button.addEventListener("click", () => {
        question.value = suggested = text;
        question.focus();
      });
      return button;
    }));
    if (ready.length && (!question.value || question.value === suggested)) question.value = suggested = ready[0];
  }

  async function take(file) {
    if (!file) return;
    if (file.size > content.bytes) {
      state.textContent = `The picture has more than ${content.bytes / 2 ** 20} MiB.`;
      return;
    }
    const bytes = new Uint8Array(await file.arrayBuffer());
    let text = "";
    for (let start = 0; start < bytes.length; start += 0x8000) text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
    state.textContent = "";
    pick({ upload: btoa(text) }, URL.createObjectURL(file));
  }

  function card(text) {
    const article = make("article", "", "card"), head = make("div", "", "ask"), words = make("div");
    if (!preview.hidden && preview.src) {
      const image = make("img");
      image.src = preview.src;
      image.alt = "";
      head.append(image);
    }
    const person = content.entities[entity.value];
    words.append(make("p", person ? `about ${person.name}` : "about somebody unknown", "tagline"), make("p", text, "question"));
    head.append(words);
    const list = make("dl", "", "side");
    const sides = content.sides.map((label) => {
      const side = make("div"), name = make("dt", label), said = make("dd");
      side.append(name, said);
      list.append(side);
      return { side, name, said };
    });
    article.append(head, list);
    return { article, sides };
  }

  function show(event, sides) {
    if (event.side === undefined) return;
    const { side, name, said } = sides[event.side];
    state.textContent = event.verdict === undefined || event.side + 1 < content.sides.length ? `${content.sides[event.side]} answers …` : "";
    side.classList.toggle("writing", event.verdict === undefined);
    if (event.verdict === undefined) {
      said.textContent = event.text;
      return;
    }
    const tag = make("span", event.verdict, `class c-${event.verdict}`);
    tag.title = content.meaning[event.verdict] || "";
    name.append(tag);
    said.replaceChildren(...event.pieces.map(([text, secret]) => (secret ? make("mark", text) : document.createTextNode(text))));
    const why = event.why || content.meaning[event.verdict] || "";
    side.append(make("p", `${event.verdict}: ${why}${event.ended ? "" : " (cut at the token limit)"}`, "why"));
  }

  // Posts values, passes every event on, and says in `place` who is waited for and what went wrong.
  async function stream(path, values, place, onEvent) {
    let last = {};
    try {
      const reply = await call(path, values);
      if (!reply.ok) {
        place.textContent = (await reply.json()).error;
        return;
      }
      const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = "", done = false; !done; ) {
        const part = await reader.read();
        done = part.done;
        const lines = (rest + (part.value || "")).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          last = JSON.parse(line);
          if (last.waiting) place.textContent = `The model is busy. Before you: ${last.waiting}.`;
          if (last.error) place.textContent = last.error;
          onEvent(last);
        }
      }
      if (!last.done && !last.error) place.textContent = "The connection broke off.";
    } catch (error) {
      place.textContent = `No answer from unsee serve (${error.message}).`;
    }
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const person = content.entities[entity.value];
    const { article, sides } = card(question.value);
    go.disabled = true;
    state.textContent = "Asked.";
    answers.hidden = false;
    find("div", answers).prepend(article);
    article.scrollIntoView({ block: "nearest" });
    await stream("/api/ask", { ...chosen, question: question.value, entity: person ? person.id : "" }, state, (event) => show(event, sides));
    for (const { side } of sides) side.classList.remove("writing");
    if (sides.every(({ said }) => !said.textContent)) article.remove();
    go.disabled = false;
  });
  filing.addEventListener("submit", async (event) => {
    event.preventDefault();
    const place = find("output", filing), button = find("button", filing);
    button.disabled = true;
    place.textContent = "Filed.";
    await stream("/api/request", { ...chosen, name: find("#name").value }, place, (what) => {
      if (what.working) place.textContent = "The model is asked what it says of this person …";
      if (what.filed) place.textContent = what.filed.join("\n");
    });
    button.disabled = false;
  });
  entity.addEventListener("change", suggest);
  drop.addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => take(chooser.files[0]));
  none.addEventListener("click", () => pick({}));
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over-it", name === "dragover");
      if (name === "drop") take(event.dataTransfer.files[0]);
    });
  }
  document.addEventListener("paste", (event) => take([...event.clipboardData.files][0]));
  login.addEventListener("submit", (event) => {
    event.preventDefault();
    token = find("#token").value.trim();
    open();
  });
  open();
})();
