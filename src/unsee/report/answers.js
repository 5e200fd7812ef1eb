// Shows a page of the answers that fit the filter. Writes text nodes only, never HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("find"), list = document.getElementById("list");
  const nav = document.getElementById("pages"), count = form.querySelector("output");
  const size = 40;
  let found = [], page = 0;

  const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const said = (answer) => answer[1].map((piece) => piece[0]).join("");
  for (const row of data.rows) {
    row.text = plain([row.question, row.reference, row.entity, row.id, ...row.answers.filter(Boolean).map(said)].join("\n"));
  }

  function make(tag, text, className) {
    const node = document.createElement(tag);
    if (text) node.textContent = text;
    if (className) node.className = className;
    return node;
  }

  function fill(name, values) {
    const select = form.elements.namedItem(name);
    for (const [value, label] of values) {
      const option = make("option", label);
      option.value = value;
      select.append(option);
    }
  }

  const distinct = (values) => [...new Set(values)].filter(Boolean).sort().map((value) => [value, value]);
  fill("verdict", distinct(data.rows.flatMap((row) => row.answers.filter(Boolean).map((answer) => answer[0]))));
  fill("stage", data.stages.map((label, place) => [String(place), label]));
  for (const name of ["role", "kind", "entity"]) fill(name, distinct(data.rows.map((row) => row[name])));

  function fits(row, want) {
    if (want.words.some((word) => !row.text.includes(word))) return false;
    if (["role", "kind", "entity"].some((name) => want[name] && row[name] !== want[name])) return false;
    const answers = want.stage === "" ? row.answers : [row.answers[Number(want.stage)]];
    return !want.verdict || answers.some((answer) => answer && answer[0] === want.verdict);
  }

  function apply() {
    const want = Object.fromEntries(["verdict", "stage", "role", "kind", "entity"].map((name) => [name, form.elements.namedItem(name).value]));
    want.words = plain(form.elements.namedItem("text").value).split(/\s+/).filter(Boolean);
    found = data.rows.filter((row) => fits(row, want));
    page = 0;
    show();
  }

  function card(row) {
    const article = make("article", "", "card");
    const ask = make("div", "", "ask");
    if (row.picture >= 0 && data.pictures[row.picture]) {
      const image = make("img");
      image.src = data.pictures[row.picture];
      image.alt = "";
      image.width = image.height = 72;
      ask.append(image);
    }
    const words = make("div");
    words.append(make("p", `${row.role} · ${row.kind}${row.entity ? ` · ${row.entity}` : ""} · ${row.id}`, "tagline"));
    words.append(make("p", row.question, "question"), make("p", `Reference: ${row.reference || "–"}`, "sub"));
    ask.append(words);
    const answers = make("dl", "", "side");
    row.answers.forEach((answer, place) => {
      if (!answer) return;
      const name = make("dt", data.stages[place]);
      name.append(" ", make("span", answer[0], `class c-${answer[0]}`));
      const text = make("dd");
      for (const [piece, secret] of answer[1]) text.append(secret ? make("mark", piece) : piece);
      const both = make("div");
      both.append(name, text);
      answers.append(both);
    });
    article.append(ask, answers);
    return article;
  }

  function show() {
    const pages = Math.max(1, Math.ceil(found.length / size));
    list.replaceChildren(...found.slice(page * size, (page + 1) * size).map(card));
    count.textContent = `${found.length} of ${data.rows.length} questions`;
    nav.querySelector("span").textContent = `page ${page + 1} of ${pages}`;
    nav.querySelector("[data-step='-1']").disabled = page === 0;
    nav.querySelector("[data-step='1']").disabled = page + 1 >= pages;
    document.getElementById("nothing").hidden = found.length > 0;
    for (const text of list.querySelectorAll("dd")) if (text.scrollHeight > text.clientHeight) text.tabIndex = 0; // scrolls by keys
  }

  nav.addEventListener("click", (event) => {
    const step = Number(event.target.dataset.step);
    if (!step) return;
    page += step;
    show();
    window.scrollTo(0, 0);
  });
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
})();
