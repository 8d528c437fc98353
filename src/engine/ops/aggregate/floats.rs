//! Sums of floats that do not depend on order and never drift: whatever was added and taken away again leaves no trace.
//!
//! A sum is kept exactly, as a few floats that do not overlap (Shewchuk, "Adaptive precision floating-point
//! arithmetic", 1997). Two of them are nearly always enough and stand in a vector by slot; the rest of the few sums that
//! need more, infinities, NaNs and numbers near the end of the range are kept aside. Reading a sum rounds it once.

use std::collections::BTreeMap;

use crate::engine::state::{Restored, Saved};
use crate::error::Result;

/// From here on numbers are added up scaled down by [`SCALE`], so that no sum overflows on the way.
const BIG: f64 = f64::from_bits((1023 + 900) << 52);
const SCALE: f64 = f64::from_bits((1023 + 200) << 52);

/// Numbers below it would lose bits if they were scaled down.
const TINY: f64 = f64::from_bits((1023 - 600) << 52);

/// Exact sums by slot.
#[derive(Default)]
pub(super) struct FloatSums {
    // The sum is the sum of both, and of what is kept aside.
    sums: Vec<[f64; 2]>,
    aside: BTreeMap<u32, Aside>,
}

#[derive(Default, Debug, PartialEq)]
struct Aside {
    nan: i64,
    positive_infinity: i64,
    negative_infinity: i64,
    // Not overlapping, ascending by magnitude, without zeros.
    rest: Vec<f64>,
    // Likewise, scaled down.
    big: Vec<f64>,
}

impl FloatSums {
    /// Makes room for slots below `slots`.
    pub(super) fn resize(&mut self, slots: usize) {
        self.sums.resize(slots, [0.0; 2]);
    }

    /// Adds `value`, `weight` times.
    #[inline]
    pub(super) fn add(&mut self, slot: u32, value: f64, weight: i64) {
        match weight {
            _ if !value.is_finite() => self.add_special(slot, value, weight),
            1 => self.add_once(slot, value),
            -1 => self.add_once(slot, -value),
            _ => self.add_often(slot, value, weight),
        }
    }

    #[inline]
    fn add_once(&mut self, slot: u32, value: f64) {
        if value.abs() >= BIG {
            let aside = self.aside.entry(slot).or_default();
            grow(&mut aside.big, value / SCALE);
            self.settle(slot);
            return;
        }
        let sum = &mut self.sums[slot as usize];
        let (high, low) = two_sum(sum[0], value);
        let (low, rest) = two_sum(sum[1], low);
        let (high, low) = two_sum(high, low);
        *sum = [high, low];
        if rest != 0.0 || !self.aside.is_empty() {
            self.add_rest(slot, rest);
        }
    }

    /// Lets big numbers and others cancel, and moves back those that are not big any more.
    fn settle(&mut self, slot: u32) {
        let aside = self.aside.entry(slot).or_default();
        let sum = &mut self.sums[slot as usize];
        // Tiny numbers stay where they are: scaled down they would lose bits.
        let parts = [std::mem::take(&mut aside.rest), vec![sum[1], sum[0]]].concat();
        *sum = [0.0; 2];
        let (tiny, others): (Vec<f64>, Vec<f64>) = parts.into_iter().partition(|p| p.abs() < TINY);
        others.iter().for_each(|p| grow(&mut aside.big, p / SCALE));
        let big = std::mem::take(&mut aside.big);
        let (small, big): (Vec<f64>, Vec<f64>) = big.into_iter().partition(|p| p.abs() < BIG / SCALE);
        aside.big = big;
        let small = small.iter().map(|p| p * SCALE);
        tiny.into_iter().chain(small).for_each(|p| grow(&mut aside.rest, p));
        self.add_rest(slot, 0.0);
    }

    /// Adds what two floats cannot hold, and moves back what they can.
    fn add_rest(&mut self, slot: u32, rest: f64) {
        if rest == 0.0 && !self.aside.contains_key(&slot) {
            return;
        }
        let aside = self.aside.entry(slot).or_default();
        let sum = &mut self.sums[slot as usize];
        for part in [rest, sum[1], sum[0]] {
            grow(&mut aside.rest, part);
        }
        *sum = [aside.rest.pop().unwrap_or(0.0), aside.rest.pop().unwrap_or(0.0)];
        self.tidy(slot);
    }

    /// Twice, four times … as often is exact, so a weight is added bit by bit.
    fn add_often(&mut self, slot: u32, value: f64, weight: i64) {
        let sign = if weight < 0 { -1.0 } else { 1.0 };
        let big = value.abs() >= BIG / SCALE;
        let (mut bits, mut doubled) = (weight.unsigned_abs(), value * sign);
        if big {
            doubled /= SCALE;
        }
        while bits != 0 {
            match bits & 1 == 1 {
                true if big => grow(&mut self.aside.entry(slot).or_default().big, doubled),
                true => self.add_once(slot, doubled),
                false => {}
            }
            bits >>= 1;
            doubled *= 2.0;
        }
        if big {
            self.settle(slot);
        }
    }

    fn add_special(&mut self, slot: u32, value: f64, weight: i64) {
        let aside = self.aside.entry(slot).or_default();
        if value.is_nan() {
            aside.nan += weight;
        } else if value > 0.0 {
            aside.positive_infinity += weight;
        } else {
            aside.negative_infinity += weight;
        }
        self.tidy(slot);
    }

    fn tidy(&mut self, slot: u32) {
        if self.aside.get(&slot) == Some(&Aside::default()) {
            self.aside.remove(&slot);
        }
    }

    /// Whether the sum is exactly nothing.
    pub(super) fn is_zero(&self, slot: u32) -> bool {
        self.sums[slot as usize] == [0.0; 2] && !self.aside.contains_key(&slot)
    }

    /// The sum, rounded to nearest.
    pub(super) fn value(&self, slot: u32) -> f64 {
        let [high, low] = self.sums[slot as usize];
        let Some(aside) = self.aside.get(&slot) else { return high + low };
        let (up, down) = (aside.positive_infinity > 0, aside.negative_infinity > 0);
        if aside.nan > 0 || (up && down) {
            return f64::NAN;
        }
        if up || down {
            return if up { f64::INFINITY } else { f64::NEG_INFINITY };
        }
        let mut parts = aside.rest.clone();
        if aside.big.is_empty() {
            grow(&mut parts, low);
            grow(&mut parts, high);
            return round(&parts);
        }
        grow(&mut parts, low);
        grow(&mut parts, high);
        let mut scaled = aside.big.clone();
        parts.iter().for_each(|p| grow(&mut scaled, p / SCALE));
        round(&scaled) * SCALE
    }

    /// Gives the sums, exact as they are.
    pub(super) fn save(&self, state: &mut Saved) {
        state.numbers(self.sums.as_flattened());
        state.numbers(&self.aside.keys().copied().collect::<Vec<_>>());
        let (mut counts, mut parts) = (Vec::<i64>::new(), Vec::<f64>::new());
        for aside in self.aside.values() {
            let lengths = [aside.rest.len() as i64, aside.big.len() as i64];
            counts
                .extend([aside.nan, aside.positive_infinity, aside.negative_infinity].iter().chain(&lengths));
            parts.extend(aside.rest.iter().chain(&aside.big));
        }
        state.numbers(&counts);
        state.numbers(&parts);
    }

    /// Takes up what [`FloatSums::save`] gave of slots below `slots`.
    pub(super) fn restore(&mut self, slots: usize, state: &mut Restored) -> Result<()> {
        let sums: Vec<f64> = state.numbers_of(2 * slots)?;
        self.sums = sums.as_chunks::<2>().0.to_vec();
        let of: Vec<u32> = state.numbers()?;
        let counts: Vec<i64> = state.numbers_of(5 * of.len())?;
        let mut parts = state.numbers::<f64>()?.into_iter();
        let mut take = |len: i64| -> Vec<f64> { parts.by_ref().take(len as usize).collect() };
        self.aside.clear();
        for (slot, counts) in of.into_iter().zip(counts.as_chunks::<5>().0) {
            let [nan, positive_infinity, negative_infinity, rest, big] = *counts;
            let (rest, big) = (take(rest), take(big));
            self.aside.insert(slot, Aside { nan, positive_infinity, negative_infinity, rest, big });
        }
        Ok(())
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.sums.capacity() * 16 + self.aside.len() * size_of::<(u32, Aside)>()
    }
}

/// The rounded sum and exactly what rounding took off.
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// Adds a number to parts that do not overlap.
fn grow(parts: &mut Vec<f64>, value: f64) {
    let mut carry = value;
    let mut kept = 0;
    for i in 0..parts.len() {
        let (sum, rest) = two_sum(carry, parts[i]);
        if rest != 0.0 {
            parts[kept] = rest;
            kept += 1;
        }
        carry = sum;
    }
    parts.truncate(kept);
    if carry != 0.0 {
        parts.push(carry);
    }
}

/// The sum of parts that do not overlap, ascending by magnitude, rounded to nearest, ties to even.
fn round(parts: &[f64]) -> f64 {
    let mut parts = parts.iter().rev();
    let Some(mut high) = parts.next().copied() else { return 0.0 };
    for part in parts.by_ref() {
        let (sum, low) = two_sum(high, *part);
        high = sum;
        if low == 0.0 {
            continue;
        }
        // Halfway cases are decided by the sign of what comes after.
        if let Some(next) = parts.next()
            && (low < 0.0) == (*next < 0.0)
        {
            let doubled = low * 2.0;
            let sum = high + doubled;
            if sum - high == doubled {
                high = sum;
            }
        }
        break;
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::testing::Rng;

    fn sum_of(values: &[(f64, i64)]) -> f64 {
        let mut sums = FloatSums::default();
        sums.resize(1);
        values.iter().for_each(|(v, w)| sums.add(0, *v, *w));
        sums.value(0)
    }

    #[test]
    fn what_is_taken_back_leaves_no_trace() {
        assert_eq!(sum_of(&[(1e300, 1), (1.0, 1), (1e-300, 1), (1e300, -1), (1.0, -1)]), 1e-300);
        assert_eq!(sum_of(&[(f64::MAX, 1), (f64::MAX, 1), (3.5, 1), (f64::MAX, -2)]), 3.5);
        assert_eq!(sum_of(&[(f64::MAX, 2)]), f64::INFINITY);
        let half = f64::MAX / 2.0;
        assert_eq!(sum_of(&[(half, 4), (1e-300, 1), (half, -1), (half, -1), (half, -2)]), 1e-300);
        assert_eq!(sum_of(&[(f64::MAX, i64::MAX), (7.0, 1), (f64::MAX, -i64::MAX)]), 7.0);
        assert_eq!(sum_of(&[(f64::MAX, 3), (f64::MAX, -2)]), f64::MAX);
        assert_eq!(sum_of(&[(f64::NAN, 1), (2.0, 1), (f64::NAN, -1)]), 2.0);
        assert_eq!(sum_of(&[(f64::INFINITY, 1), (2.0, 1)]), f64::INFINITY);
        assert!(sum_of(&[(f64::INFINITY, 1), (f64::NEG_INFINITY, 1)]).is_nan());
        assert_eq!(sum_of(&[(0.1, 10)]), 1.0);
        assert_eq!(sum_of(&[(f64::from_bits(1), 5), (f64::from_bits(1), -3)]), f64::from_bits(2));
    }

    #[test]
    fn sums_do_not_depend_on_the_order() {
        let mut rng = Rng::new(21);
        for _ in 0..300 {
            let n = rng.below(40);
            let mut values: Vec<(f64, i64)> = (0..n)
                .map(|_| {
                    let exponent = rng.below(2040) as u64;
                    let bits = (rng.next() & ((1 << 52) - 1)) | (exponent << 52) | (rng.next() & (1 << 63));
                    (f64::from_bits(bits), [1, 1, -1, 3, -2][rng.below(5)])
                })
                .collect();
            let forward = sum_of(&values);
            for i in (1..values.len()).rev() {
                values.swap(i, rng.below(i + 1));
            }
            assert_eq!(sum_of(&values).to_bits(), forward.to_bits());
            // Take half of it away again, and the other half remains.
            let half = values.len() / 2;
            let mut sums = FloatSums::default();
            sums.resize(1);
            values.iter().for_each(|(v, w)| sums.add(0, *v, *w));
            values[..half].iter().for_each(|(v, w)| sums.add(0, *v, -w));
            assert_eq!(sums.value(0).to_bits(), sum_of(&values[half..]).to_bits());
            values[half..].iter().for_each(|(v, w)| sums.add(0, *v, -w));
            assert!(sums.is_zero(0));
        }
    }
}
