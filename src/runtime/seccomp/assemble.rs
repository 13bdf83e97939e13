//! Classic BPF, assembled from the last instruction to the first.
//!
//! Jumps only go forward, so laying code out backwards means every target exists before its jump, and a
//! [`Label`] is a finished place: no fix-ups. A conditional jump reaches 255 instructions; a target further
//! away gets a copy of its `return`, or a long jump, close by.
//!
//! Invariant: after each method the label it returned is a valid entry; code that must follow an instruction
//! directly is at the top when that instruction is added.
//!
//! Source: kernel Documentation/networking/filter.rst; `struct seccomp_data` in linux/seccomp.h.

use std::collections::HashMap;

use libc::sock_filter;

/// A place in the code, counted from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// How an argument is compared; 64-bit, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// `argument & mask == value`
    MaskedEqual(u64),
}

/// One comparison of argument `index` (0..6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Comparison {
    pub index: u8,
    pub operator: Operator,
    pub value: u64,
}

// Instruction codes: class | size or operation | mode or source.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

// struct seccomp_data { int nr; u32 arch; u64 instruction_pointer; u64 args[6]; }, little endian.
const NUMBER_OFFSET: u32 = 0;
const ARCH_OFFSET: u32 = 4;
const ARGS_OFFSET: u32 = 16;

/// A jump's reach, less the three instructions that bringing two targets near may add.
const REACH: usize = 252;

pub(super) struct Assembler {
    /// Last instruction first.
    code: Vec<sock_filter>,
    returns: HashMap<u32, Label>,
}

impl Assembler {
    pub(super) fn new() -> Assembler {
        Assembler { code: Vec::with_capacity(256), returns: HashMap::new() }
    }

    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) -> Label {
        self.code.push(sock_filter { code, jt, jf, k });
        Label(self.code.len() - 1)
    }

    /// Instructions between the next one to be added and `label`.
    fn distance(&self, label: Label) -> usize {
        self.code.len() - 1 - label.0
    }

    /// Makes the next instruction run into `label`.
    fn fall_into(&mut self, label: Label) {
        let distance = self.distance(label);
        if distance > 0 {
            self.jump(label);
        }
    }

    fn jump(&mut self, label: Label) -> Label {
        let target = self.code[label.0];
        if target.code == RETURN {
            let copy = self.push(RETURN, target.k, 0, 0);
            self.returns.insert(target.k, copy);
            return copy;
        }
        let distance = u32::try_from(self.distance(label)).expect("filters are short");
        self.push(JUMP, distance, 0, 0)
    }

    /// A label for the same code within reach of a conditional jump.
    fn near(&mut self, label: Label) -> Label {
        if self.distance(label) <= REACH { label } else { self.jump(label) }
    }

    fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let (yes, no) = (self.near(yes), self.near(no));
        let reach = |distance| u8::try_from(distance).expect("made near");
        let (jt, jf) = (reach(self.distance(yes)), reach(self.distance(no)));
        self.push(code, k, jt, jf)
    }

    fn load(&mut self, offset: u32, then: Label) -> Label {
        self.fall_into(then);
        self.push(LOAD, offset, 0, 0)
    }

    /// Ends with `SECCOMP_RET_*`.
    pub(super) fn action(&mut self, value: u32) -> Label {
        if let Some(label) = self.returns.get(&value)
            && self.distance(*label) <= REACH
        {
            return *label;
        }
        let label = self.push(RETURN, value, 0, 0);
        self.returns.insert(value, label);
        label
    }

    pub(super) fn load_arch(&mut self, then: Label) -> Label {
        self.load(ARCH_OFFSET, then)
    }

    pub(super) fn load_number(&mut self, then: Label) -> Label {
        self.load(NUMBER_OFFSET, then)
    }

    /// Tests what was loaded.
    pub(super) fn equal(&mut self, k: u32, yes: Label, no: Label) -> Label {
        self.branch(JUMP_EQUAL, k, yes, no)
    }

    /// Tests what was loaded.
    pub(super) fn at_least(&mut self, k: u32, yes: Label, no: Label) -> Label {
        self.branch(JUMP_GREATER_OR_EQUAL, k, yes, no)
    }

    /// Loads and tests an argument. `wide` is false where the upper half is always zero.
    pub(super) fn compare(&mut self, comparison: &Comparison, wide: bool, yes: Label, no: Label) -> Label {
        let Comparison { index, operator, value } = *comparison;
        let low_offset = ARGS_OFFSET + 8 * u32::from(index);
        let high_offset = low_offset + 4;
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let halves = |value: u64| ((value >> 32) as u32, value as u32);
        let (high, low) = halves(value);
        // An upper half that is always zero needs no test: it decides now.
        if !wide && high != 0 {
            match operator {
                Operator::Equal | Operator::Greater | Operator::GreaterOrEqual | Operator::MaskedEqual(_) => {
                    return no;
                }
                Operator::NotEqual | Operator::Less | Operator::LessOrEqual => return yes,
            }
        }
        match operator {
            Operator::NotEqual => {
                let equal = Comparison { operator: Operator::Equal, ..*comparison };
                self.compare(&equal, wide, no, yes)
            }
            Operator::Less => {
                let not_less = Comparison { operator: Operator::GreaterOrEqual, ..*comparison };
                self.compare(&not_less, wide, no, yes)
            }
            Operator::LessOrEqual => {
                let greater = Comparison { operator: Operator::Greater, ..*comparison };
                self.compare(&greater, wide, no, yes)
            }
            Operator::Equal => {
                let test = self.branch(JUMP_EQUAL, low, yes, no);
                let test = self.load(low_offset, test);
                if !wide {
                    return test;
                }
                let test = self.branch(JUMP_EQUAL, high, test, no);
                self.load(high_offset, test)
            }
            Operator::Greater | Operator::GreaterOrEqual => {
                let code = if operator == Operator::Greater { JUMP_GREATER } else { JUMP_GREATER_OR_EQUAL };
                let test = self.branch(code, low, yes, no);
                let test = self.load(low_offset, test);
                if !wide {
                    return test;
                }
                let test = self.branch(JUMP_EQUAL, high, test, no);
                let test = self.branch(JUMP_GREATER, high, yes, test);
                self.load(high_offset, test)
            }
            Operator::MaskedEqual(mask) => {
                let (mask_high, mask_low) = halves(mask);
                let mut test = yes;
                if mask_low != 0 {
                    test = self.branch(JUMP_EQUAL, low, test, no);
                    self.fall_into(test);
                    test = self.push(AND, mask_low, 0, 0);
                    test = self.load(low_offset, test);
                }
                // The caller has masked the value: an upper half without a mask holds.
                if mask_high == 0 || !wide {
                    return test;
                }
                test = self.branch(JUMP_EQUAL, high, test, no);
                self.fall_into(test);
                test = self.push(AND, mask_high, 0, 0);
                self.load(high_offset, test)
            }
        }
    }

    pub(super) fn finish(mut self) -> Vec<sock_filter> {
        self.code.reverse();
        self.code
    }
}
