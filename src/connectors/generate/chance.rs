//! Chance that repeats: numbers that look random and are functions of what they are asked for.

/// Well mixed bits of a number (splitmix64); another `salt` gives another sequence.
pub fn mixed(n: u64, salt: u64) -> u64 {
    let mut z = n.wrapping_add(salt << 32).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
