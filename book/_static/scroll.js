// What scrolls inside a page can be reached and scrolled by keyboard, and says its name.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".book-table, .pst-scrollable-table-container")) {
    const heads = [...box.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
    const name = box.querySelector("caption")?.textContent || heads.filter(Boolean).join(", ");
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", `Table: ${name}`);
  }
  for (const figure of document.querySelectorAll(".book-figure")) {
    if (figure.scrollWidth > figure.clientWidth) figure.tabIndex = 0;
  }
});
