// What every page does: light or dark by a button, and the section in view marked in the bar.
(() => {
  const root = document.documentElement;
  const dark = () => root.style.colorScheme
    ? root.style.colorScheme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.getElementById("theme").addEventListener("click", () => {
    root.style.colorScheme = dark() ? "light" : "dark";
    dispatchEvent(new Event("themechange"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));
  const links = [...document.querySelectorAll(".site nav a")];
  const mark = entries => entries.filter(entry => entry.isIntersecting).forEach(entry =>
    links.forEach(link => link.classList.toggle("here", link.hash === "#" + entry.target.id)));
  const seen = new IntersectionObserver(mark, { rootMargin: "-45% 0px -50% 0px" });
  document.querySelectorAll("main > section[id]").forEach(section => seen.observe(section));
})();
