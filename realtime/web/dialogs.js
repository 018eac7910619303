// Single-key shortcuts, and the dialog with the link to this stream.

/**
 * Call `actions[key]` for single keys, unless the person types, presses a focused button with
 * space, or has a dialog open. Keys with modifiers stay the browser's.
 */
export function listenForKeys({ isOn, actions }) {
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (document.querySelector('dialog[open]')) return;
    const target = event.target;
    if (target.matches?.('input[type="number"], input[type="text"], select')) return;
    const presses = 'button, a, input[type="radio"], input[type="checkbox"]';
    if (event.key === ' ' && target.matches?.(presses)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!Object.hasOwn(actions, key) || !isOn(key)) return;
    event.preventDefault();
    actions[key]();
  });
}

/** A function that opens the dialog, with `makeLink()` in it, ready to be copied. */
export function shareDialog(byId, makeLink) {
  const field = byId('share-link');
  byId('copy').addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(field.value);
      byId('copied').textContent = 'Copied.';
    } catch {
      field.select(); // no permission, or a page without https on another machine
      byId('copied').textContent = 'The link is selected: copy it with Ctrl+C.';
    }
  });
  return () => {
    field.value = makeLink();
    byId('copied').textContent = '';
    byId('share-local').hidden = !/^(localhost|127\.|\[::1\])/.test(location.hostname);
    byId('share-box').showModal();
    field.select();
  };
}
