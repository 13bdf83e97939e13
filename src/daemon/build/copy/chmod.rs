//! `--chmod`: octal, or as chmod(1) reads it.

use crate::daemon::error::{Error, Result};

/// Changes to be made to permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    Octal(u32),
    Symbolic(Vec<Clause>),
}

/// `u+x`: whose bits, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Of 0o7777.
    who: u32,
    sign: char,
    letters: String,
}

impl Chmod {
    /// InvalidParameter for what chmod(1) would not take either.
    pub fn parse(text: &str) -> Result<Chmod> {
        let invalid = || {
            Error::invalid(format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            ))
        };
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Chmod::Octal).ok_or_else(invalid);
        }
        let mut clauses = Vec::new();
        for clause in text.split(',') {
            let at = clause.find(['+', '-', '=']).ok_or_else(invalid)?;
            let mut who = 0;
            for letter in clause[..at].chars() {
                who |= match letter {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o1007,
                    'a' => 0o7777,
                    _ => return Err(invalid()),
                };
            }
            let who = if who == 0 { 0o7777 } else { who };
            let mut letters = clause[at..].chars();
            let Some(sign) = letters.next() else { return Err(invalid()) };
            let letters = letters.as_str();
            if letters.is_empty() && sign != '=' || !letters.chars().all(|letter| "rwxXst".contains(letter)) {
                return Err(invalid());
            }
            clauses.push(Clause { who, sign, letters: letters.to_owned() });
        }
        Ok(Chmod::Symbolic(clauses))
    }

    /// The permission bits that `mode` becomes.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let clauses = match self {
            Chmod::Octal(mode) => return *mode,
            Chmod::Symbolic(clauses) => clauses,
        };
        clauses.iter().fold(mode, |mode, Clause { who, sign, letters }| {
            let mut bits = 0;
            for letter in letters.chars() {
                bits |= match letter {
                    'r' => 0o444,
                    'w' => 0o222,
                    'x' => 0o111,
                    'X' if is_directory || mode & 0o111 != 0 => 0o111,
                    's' => 0o6000,
                    't' => 0o1000,
                    _ => 0,
                };
            }
            let bits = bits & who;
            match sign {
                '+' => mode | bits,
                '-' => mode & !bits,
                _ => mode & !(who & 0o777) | bits,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_with_chmod() {
        for (text, mode, is_directory, wanted) in [
            ("755", 0o600, false, 0o755),
            ("04711", 0, false, 0o4711),
            ("u+x", 0o644, false, 0o744),
            ("+x,o-rwx", 0o644, false, 0o750),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o660, false, 0o644),
            ("go=", 0o777, false, 0o700),
            ("+t", 0o777, true, 0o1777),
            ("g+s", 0o755, true, 0o2755),
        ] {
            assert_eq!(Chmod::parse(text).unwrap().apply(mode, is_directory), wanted, "{text}");
        }
        for bad in ["", "888", "17777", "x", "u+", "u+y", "z+x"] {
            assert!(Chmod::parse(bad).is_err(), "{bad}");
        }
    }
}
