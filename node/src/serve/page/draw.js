// The drawing of the network: nodes and lines on one canvas, drawn when they change, and the shreds
// on another above it, drawn every frame while there are any. Where nothing moves nothing is drawn.
const MOST_DOTS = 500;
const TRAVEL_MS = 420;
const RING = 32;

class Stage {
  constructor(canvas) {
    this.canvas = canvas;
    this.base = canvas.getContext('2d');
    const above = document.createElement('canvas');
    above.id = 'dots';
    above.setAttribute('aria-hidden', 'true');
    canvas.after(above);
    this.above = above;
    this.top = above.getContext('2d');
    this.nodes = [];
    this.parents = [];
    this.dots = [];
    this.still = matchMedia('(prefers-reduced-motion: reduce)').matches;
    this.hidden = false;
    this.shape = '';
    this.readColours();
    new ResizeObserver(() => this.resize()).observe(canvas);
    document.addEventListener('visibilitychange', () => { this.dots = []; });
    this.resize();
    const frame = (now) => {
      this.frame(now);
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    const names = ['ink', 'muted', 'grid', 'axis', 'panel', 'paper', 'own', 'overlay', 'repair', 'gossip', 'good', 'bad', 'doubt', 'leader'];
    this.colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue('--' + name).trim()]));
    this.dirty = true;
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (width === this.width && height === this.height) return;
    Object.assign(this, { width, height, dirty: true });
    // More than two pixels for one cost time and show nothing.
    this.scale = Math.min(devicePixelRatio || 1, 2);
    for (const canvas of [this.canvas, this.above]) {
      canvas.width = Math.max(1, width * this.scale);
      canvas.height = Math.max(1, height * this.scale);
      canvas.getContext('2d').setTransform(this.scale, 0, 0, this.scale, 0, 0);
    }
    this.above.style.height = height + 'px';
    this.place();
  }

  // Nodes: { label, up, leader, next, me, focus, way, share, region }. Parents: of the tree, by node.
  set(nodes, parents) {
    const shape = JSON.stringify([nodes, parents]);
    if (shape === this.shape) return;
    this.shape = shape;
    const moved = nodes.length !== this.nodes.length || nodes.some((node, i) => node.region !== this.nodes[i].region);
    this.nodes = nodes;
    this.parents = parents || [];
    if (moved) this.place();
    this.dirty = true;
  }

  // Few nodes stand in a ring, many like the seeds of a sunflower; those of a region stand together.
  place() {
    const { width, height } = this;
    const count = this.nodes.length;
    const order = this.nodes.map((_, i) => i).sort((a, b) => (this.nodes[a].region || 0) - (this.nodes[b].region || 0) || a - b);
    const [x0, y0] = [width / 2, height / 2];
    const [rx, ry] = [Math.max(40, width / 2 - 46), Math.max(40, height / 2 - 34)];
    this.at = new Array(count);
    order.forEach((node, place) => {
      if (count <= RING) {
        const angle = (place / count) * 2 * Math.PI - Math.PI / 2;
        this.at[node] = [x0 + rx * Math.cos(angle), y0 + ry * Math.sin(angle)];
      } else {
        const angle = place * 2.399963;
        const far = Math.sqrt((place + 0.5) / count);
        this.at[node] = [x0 + rx * far * Math.cos(angle), y0 + ry * far * Math.sin(angle)];
      }
    });
    this.radius = count <= 12 ? 13 : count <= RING ? 9 : count <= 128 ? 5 : 4;
    this.dirty = true;
    this.dots = [];
  }

  // So many shreds went from one node to another: a dot stands for one, for two, for four …
  shreds(from, to, count, colour) {
    if (this.still || document.hidden || !this.at || !this.at[from] || !this.at[to]) return;
    const dots = Math.min(6, Math.ceil(Math.log2(count + 1)));
    const now = performance.now();
    for (let n = 0; n < dots && this.dots.length < MOST_DOTS; n += 1) {
      this.dots.push({ from, to, colour, start: now + Math.random() * 180 });
    }
  }

  frame(now) {
    if (this.dirty) {
      this.dirty = false;
      this.drawBase();
    }
    if (!this.dots.length && this.clean) return;
    const { top } = this;
    top.clearRect(0, 0, this.width, this.height);
    this.dots = this.dots.filter((dot) => now - dot.start < TRAVEL_MS);
    this.clean = this.dots.length === 0;
    const size = this.radius > 6 ? 4 : 3;
    let colour = '';
    for (const dot of this.dots) {
      const share = (now - dot.start) / TRAVEL_MS;
      if (share < 0) continue;
      const [a, b] = [this.at[dot.from], this.at[dot.to]];
      if (!a || !b) continue;
      if (colour !== dot.colour) {
        colour = dot.colour;
        top.fillStyle = this.colours[colour];
      }
      const [x, y] = [a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share];
      top.fillRect(x - size / 2, y - size / 2, size, size);
    }
  }

  drawBase() {
    const { base, colours, nodes, at } = this;
    base.clearRect(0, 0, this.width, this.height);
    if (!at) return;
    base.lineWidth = 1;
    base.strokeStyle = colours.axis;
    base.globalAlpha = nodes.length > 64 ? 0.45 : 0.7;
    base.beginPath();
    this.parents.forEach((parent, child) => {
      if (parent === null || parent === undefined || !at[parent] || !at[child]) return;
      base.moveTo(at[parent][0], at[parent][1]);
      base.lineTo(at[child][0], at[child][1]);
    });
    base.stroke();
    base.globalAlpha = 1;
    nodes.forEach((node, i) => this.drawNode(node, at[i]));
  }

  drawNode(node, [x, y]) {
    const { base, colours, radius } = this;
    const disc = (r) => {
      base.beginPath();
      base.arc(x, y, r, 0, 2 * Math.PI);
    };
    disc(radius);
    base.fillStyle = !node.up ? colours.paper : node.way === 'gossip' ? colours.gossip : node.way === 'probing' ? colours.doubt : colours.overlay;
    base.fill();
    base.lineWidth = node.up ? 1.5 : 2;
    base.strokeStyle = node.up ? colours.paper : colours.bad;
    base.stroke();
    if (!node.up) {
      base.beginPath();
      base.moveTo(x - radius * 0.6, y - radius * 0.6);
      base.lineTo(x + radius * 0.6, y + radius * 0.6);
      base.moveTo(x + radius * 0.6, y - radius * 0.6);
      base.lineTo(x - radius * 0.6, y + radius * 0.6);
      base.stroke();
    }
    if (node.leader || node.next) {
      disc(radius + 4);
      base.lineWidth = 2.5;
      base.strokeStyle = colours.leader;
      base.setLineDash(node.leader ? [] : [3, 3]);
      base.stroke();
      base.setLineDash([]);
    }
    if (node.up && node.share > 0 && node.share < 1) {
      base.beginPath();
      base.arc(x, y, radius + 4, -Math.PI / 2, -Math.PI / 2 + 2 * Math.PI * node.share);
      base.lineWidth = 2.5;
      base.strokeStyle = colours.good;
      base.stroke();
    }
    if (node.label && (this.radius > 6 || node.leader || node.me)) {
      base.font = `${node.leader || node.me || node.focus ? '600 ' : ''}12px system-ui, "DejaVu Sans", sans-serif`;
      base.fillStyle = colours.ink;
      const above = y > this.height / 2;
      base.textAlign = 'center';
      base.textBaseline = above ? 'top' : 'bottom';
      base.fillText(node.label, x, y + (above ? radius + 7 : -radius - 6));
    }
  }

  // The node at a point of the canvas, if there is one.
  find(x, y) {
    const near = (this.radius || 0) + 6;
    return (this.at || []).findIndex((at) => at && Math.hypot(at[0] - x, at[1] - y) <= near);
  }
}

// A line of latencies, drawn anew when they change.
const spark = (canvas, values, colours) => {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const shape = `${width} ${height} ${colours.ink} ${values.join()}`;
  if (canvas.lastShape === shape || !width) return;
  canvas.lastShape = shape;
  const scale = Math.min(devicePixelRatio || 1, 2);
  canvas.width = width * scale;
  canvas.height = height * scale;
  const to = canvas.getContext('2d');
  to.scale(scale, scale);
  if (!values.length) return;
  const most = Math.max(...values, 1);
  const step = width / Math.max(values.length - 1, 60);
  to.strokeStyle = colours.overlay;
  to.lineWidth = 1.8;
  to.lineJoin = 'round';
  to.beginPath();
  values.forEach((value, i) => to.lineTo(i * step, height - 8 - (value / most) * (height - 26)));
  to.stroke();
  to.fillStyle = colours.muted;
  to.font = '12px system-ui, "DejaVu Sans", sans-serif';
  to.fillText(`${ms(most)} ms`, 6, 14);
};
