// Call once things are quiet.
export function debounce(call, wait = 120) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(call, wait);
  };
}
