// The HTML of the page as it is now, with the content of open shadow roots, at most `limit` characters.
(limit) => {
  const root = document.documentElement;
  if (!root) return "";
  for (const element of root.querySelectorAll("noscript")) element.remove(); // the browser shows none
  const shadowRoots = [];
  const collect = (node) => {
    for (const element of node.querySelectorAll("*")) {
      if (element.shadowRoot) {
        shadowRoots.push(element.shadowRoot);
        collect(element.shadowRoot);
      }
    }
  };
  collect(root);
  const [start, end] = root.cloneNode(false).outerHTML.split(/(?=<\/html>$)/i);
  const inner = shadowRoots.length ? root.getHTML({ shadowRoots }) : root.innerHTML;
  return ("<!DOCTYPE html>" + start + inner + (end ?? "")).slice(0, limit);
}
