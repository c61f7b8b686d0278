// What scrolls sideways can be reached by keyboard as well.
document.addEventListener("DOMContentLoaded", () => {
  for (const wide of document.querySelectorAll("article pre, article table, article .table-wrapper")) {
    if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;
  }
});
