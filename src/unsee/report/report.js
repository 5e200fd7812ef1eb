// Filters the gallery. Reads only data attributes; writes no HTML.
(() => {
  const form = document.getElementById("filter");
  if (!form) return;
  const cards = [...document.querySelectorAll(".card")];
  const count = form.querySelector("output");
  const wanted = (name) => form.elements.namedItem(name).value;

  function fits(answer, stage, verdict) {
    return (!stage || answer.dataset.stage === stage) && (!verdict || answer.dataset.verdict === verdict);
  }

  function apply() {
    const stage = wanted("stage"), verdict = wanted("verdict"), role = wanted("role");
    let shown = 0;
    for (const card of cards) {
      const answers = [...card.querySelectorAll(".answer")];
      const show = (!role || card.dataset.role === role) && answers.some((answer) => fits(answer, stage, verdict));
      card.hidden = !show;
      shown += show;
      for (const answer of answers) {
        answer.hidden = Boolean(stage) && answer.dataset.stage !== stage && answer.dataset.stage !== "original";
        answer.classList.toggle("dim", Boolean(verdict) && answer.dataset.verdict !== verdict);
      }
    }
    count.textContent = `${shown} of ${cards.length} shown`;
    document.getElementById("nothing").hidden = shown > 0;
  }

  form.hidden = false;
  form.addEventListener("change", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
})();
