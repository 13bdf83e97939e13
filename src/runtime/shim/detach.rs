//! Finding the detach keys in what a client types.
//!
//! Keys that could still become the sequence are held back; when the next one does not fit, they are
//! passed on, and matching starts again with that key (Docker's `EscapeProxy` behaves so).

/// Watches one client's input.
#[derive(Debug, Default)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Watches for `keys`; an empty sequence never matches.
    pub fn new(keys: Vec<u8>) -> DetachKeys {
        DetachKeys { keys, matched: 0 }
    }

    /// Appends to `out` what may pass; `true` when the sequence is complete (what follows it is dropped).
    pub fn pass(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            out.extend_from_slice(input);
            return false;
        }
        for &byte in input {
            if byte != self.keys[self.matched] && self.matched > 0 {
                out.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return true;
                }
            } else {
                out.push(byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(keys: &[u8], chunks: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut matcher = DetachKeys::new(keys.to_vec());
        let mut out = Vec::new();
        let detached = chunks.iter().any(|chunk| matcher.pass(chunk, &mut out));
        (out, detached)
    }

    #[test]
    fn the_sequence_detaches_and_is_not_passed_on() {
        assert_eq!(run(&[16, 17], &[b"ls\n\x10\x11rest"]), (b"ls\n".to_vec(), true));
    }

    #[test]
    fn it_may_arrive_in_pieces() {
        assert_eq!(run(&[16, 17], &[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
    }

    #[test]
    fn a_partial_match_is_held_back_then_passed_on() {
        assert_eq!(run(&[16, 17], &[b"a\x10"]), (b"a".to_vec(), false));
        assert_eq!(run(&[16, 17], &[b"a\x10", b"b"]), (b"a\x10b".to_vec(), false));
    }

    #[test]
    fn the_first_key_twice_starts_over() {
        assert_eq!(run(&[16, 17], &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
    }

    #[test]
    fn no_keys_means_no_detaching() {
        assert_eq!(run(&[], &[b"\x10\x11"]), (b"\x10\x11".to_vec(), false));
    }
}
