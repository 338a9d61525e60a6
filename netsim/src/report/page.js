// Extras only: what a pointer is on, and switches for protocols. The page is complete without.
(() => {
  const tip = document.createElement('div');
  tip.id = 'tip';
  tip.hidden = true;
  document.body.append(tip);
  const show = (event) => {
    const on = event.target.closest ? event.target.closest('[data-tip]') : null;
    tip.hidden = !on;
    if (!on) return;
    tip.textContent = on.getAttribute('data-tip');
    const box = tip.getBoundingClientRect();
    const below = event.clientY + 18 + box.height < innerHeight;
    const left = Math.min(event.clientX + 12, innerWidth - box.width - 6);
    tip.style.left = Math.max(6, left) + 'px';
    tip.style.top = (below ? event.clientY + 18 : event.clientY - box.height - 10) + 'px';
  };
  addEventListener('pointermove', show);
  addEventListener('pointerdown', show);
  addEventListener('scroll', () => { tip.hidden = true; }, true);
  const keys = [...document.querySelectorAll('[data-series]')];
  const toggle = (key) => {
    const n = key.dataset.series;
    const off = document.body.classList.toggle('off' + n);
    for (const other of keys.filter((other) => other.dataset.series === n)) {
      other.classList.toggle('off', off);
      other.setAttribute('aria-pressed', String(!off));
    }
  };
  for (const key of keys) {
    key.setAttribute('role', 'button');
    key.setAttribute('aria-pressed', 'true');
    key.tabIndex = 0;
    key.title = 'show or hide';
    key.addEventListener('click', () => toggle(key));
    key.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault();
      toggle(key);
    });
  }
})();
