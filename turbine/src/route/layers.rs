//! Positions of a tree whose relays stand in the order of a shuffle.

/// A tree over positions 0…n−1 with at most F children each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layers {
    n: usize,
    fanout: usize,
}

impl Layers {
    pub(super) const fn new(n: usize, fanout: usize) -> Self {
        Self { n, fanout }
    }

    /// The first position of a layer: 1 + F + … + F^(layer−1), or n if that is beyond it.
    pub(super) fn start(self, layer: u32) -> usize {
        let (mut start, mut width) = (0usize, 1usize);
        for _ in 0..layer {
            start = start.saturating_add(width).min(self.n);
            width = width.saturating_mul(self.fanout);
        }
        start
    }

    /// Layer and width of the layer of a position.
    fn layer_of(self, position: usize) -> (usize, usize, usize) {
        let (mut start, mut width) = (0usize, 1usize);
        loop {
            let next = start.saturating_add(width);
            if position < next {
                return (start, width, next);
            }
            start = next;
            width = width.saturating_mul(self.fanout);
        }
    }

    /// The positions below a position.
    pub(super) fn children(self, position: usize) -> impl Iterator<Item = usize> {
        let (start, width, next) = self.layer_of(position);
        let offset = position - start;
        let n = self.n;
        (0..self.fanout)
            .map(move |j| next.saturating_add(offset).saturating_add(j.saturating_mul(width)))
            .take_while(move |child| *child < n)
    }

    /// The number of positions with children, which come first.
    pub(super) fn internal(self) -> usize {
        if self.n <= 1 {
            return 0;
        }
        // Children of a layer are dealt one a parent and round: a parent has one exactly if
        // its first child exists.
        let (start, _, _) = self.layer_of(self.n - 1);
        let (above, _, _) = self.layer_of(start - 1);
        (above + (self.n - start)).min(start)
    }
}
