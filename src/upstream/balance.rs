//! Who is next. Pure: counters and seeds are arguments.

/// A sequence of 64-bit points that fills the range evenly from wherever it starts (multiples of the golden ratio). Shares come
/// closer to the weights than random points do, also when users of one sequence take turns.
#[derive(Debug, Clone)]
pub struct Points(u64);

impl Points {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Points {
        Points(seed)
    }

    /// The next point.
    pub fn next_point(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0
    }
}

/// The index whose share of the sum of `weights` holds `point` (taken as a fraction of 2^64). `None` where the sum is 0.
pub fn choose(weights: impl Iterator<Item = u32> + Clone, point: u64) -> Option<usize> {
    let sum: u64 = weights.clone().map(u64::from).sum();
    let mut position = ((u128::from(point) * u128::from(sum)) >> 64) as u64;
    for (index, weight) in weights.enumerate() {
        if position < u64::from(weight) {
            return Some(index);
        }
        position -= u64::from(weight);
    }
    None
}

/// Weighted round robin, smooth (nginx's): over one cycle each gets exactly its weight, and no one twice in a row without need.
#[derive(Debug)]
pub struct RoundRobin {
    weights: Vec<u32>,
    current: Vec<i64>,
    sum: i64,
    next: usize,
    all_equal: bool,
}

impl RoundRobin {
    /// Over `weights`, beginning where `seed` says, so that workers do not all start at the first.
    pub fn new(weights: Vec<u32>, seed: u64) -> RoundRobin {
        let sum: i64 = weights.iter().map(|&weight| i64::from(weight)).sum();
        let all_equal = sum > 0 && weights.windows(2).all(|pair| pair[0] == pair[1]);
        let count = weights.len().max(1);
        let next = (seed % count as u64) as usize;
        let mut robin = RoundRobin { current: vec![0; weights.len()], weights, sum, next, all_equal };
        if !all_equal {
            for _ in 0..next {
                robin.pick();
            }
        }
        robin
    }

    /// The next index; `None` where all weights are 0.
    pub fn pick(&mut self) -> Option<usize> {
        if self.all_equal {
            let index = self.next;
            self.next = if index + 1 == self.weights.len() { 0 } else { index + 1 };
            return Some(index);
        }
        let mut best: Option<usize> = None;
        for index in 0..self.weights.len() {
            if self.weights[index] == 0 {
                continue;
            }
            self.current[index] += i64::from(self.weights[index]);
            if best.is_none_or(|best| self.current[index] > self.current[best]) {
                best = Some(index);
            }
        }
        let best = best?;
        self.current[best] -= self.sum;
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(weights: &[u32], seed: u64, count: usize) -> Vec<usize> {
        let mut robin = RoundRobin::new(weights.to_vec(), seed);
        (0..count).filter_map(|_| robin.pick()).collect()
    }

    #[test]
    fn round_robin_gives_each_its_weight_in_every_cycle() {
        assert_eq!(picks(&[1, 1, 1], 0, 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(picks(&[1, 1, 1], 5, 4), [2, 0, 1, 2]);
        assert_eq!(picks(&[2, 1], 0, 6), [0, 1, 0, 0, 1, 0]);
        assert_eq!(picks(&[5, 0, 1], 0, 12).iter().filter(|&&index| index == 2).count(), 2);
        assert_eq!(picks(&[0, 3], 1, 3), [1, 1, 1]);
        assert_eq!(picks(&[0, 0], 0, 3), [] as [usize; 0]);
        assert_eq!(picks(&[], 7, 3), [] as [usize; 0]);
    }

    #[test]
    fn shares_follow_the_weights_from_any_start() {
        for seed in [0, 1, u64::MAX / 3, u64::MAX] {
            let mut points = Points::new(seed);
            let mut counts = [0_u32; 3];
            for _ in 0..1000 {
                let index = choose([9, 0, 1].into_iter(), points.next_point()).expect("the sum is not 0");
                counts[index] += 1;
            }
            assert_eq!(counts[1], 0);
            assert!((895..=905).contains(&counts[0]), "{counts:?} from {seed}");
        }
    }

    #[test]
    fn two_users_that_take_turns_both_get_their_shares() {
        let mut points = Points::new(42);
        let mut counts = [[0_u32; 2]; 2];
        for turn in 0..2000 {
            counts[turn % 2][choose([1, 1].into_iter(), points.next_point()).expect("the sum is not 0")] += 1;
        }
        assert!(counts.iter().all(|counts| (480..=520).contains(&counts[0])), "{counts:?}");
    }

    #[test]
    fn no_weight_means_no_choice() {
        assert_eq!(choose([0, 0].into_iter(), u64::MAX), None);
        assert_eq!(choose([].into_iter(), 0), None);
        assert_eq!(choose([0, 1].into_iter(), 0), Some(1));
        assert_eq!(choose([1, 1].into_iter(), u64::MAX), Some(1));
    }
}
