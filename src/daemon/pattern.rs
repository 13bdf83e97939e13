//! The regular expressions of `--filter name=…`: the common subset of Go's, matched in linear time.
//!
//! Understood: literals, `.`, `[a-z]`, `[^…]`, `\d \w \s` and their capitals, `^`, `$`, `*`, `+`, `?`, `{n,m}`,
//! `|` and groups. What does not parse matches only itself, as in Docker. A pattern becomes a program of at
//! most [`MAX_STEPS`] steps, run over the text with all alternatives side by side: no pattern is slow.
//!
//! Source: Docker matches a filter's value exactly or as an RE2 search.

/// Bounds both memory and time: a name has at most a few hundred letters.
const MAX_STEPS: usize = 4096;
/// How deep groups may be nested; the parser recurses.
const MAX_DEPTH: usize = 32;

/// A filter's value, ready to be matched against names.
#[derive(Debug)]
pub struct Pattern {
    text: String,
    program: Option<Vec<Step>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Takes a letter in (or, negated, outside) the ranges.
    Letter {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    Start,
    End,
    /// Goes on at both places.
    Fork(usize, usize),
    Jump(usize),
    Accept,
}

impl Pattern {
    pub fn new(text: &str) -> Pattern {
        let mut parser = Parser { rest: text.chars().collect::<Vec<_>>().into(), program: Vec::new() };
        let whole = parser.alternatives(0).is_some() && parser.rest.is_empty();
        parser.program.push(Step::Accept);
        Pattern { text: text.to_owned(), program: whole.then_some(parser.program) }
    }

    /// Whether the pattern is `text`, or occurs in it.
    pub fn matches(&self, text: &str) -> bool {
        self.text == text || self.program.as_ref().is_some_and(|program| search(program, text))
    }
}

/// Runs all alternatives at once: `now` holds the steps that wait for the next letter.
fn search(program: &[Step], text: &str) -> bool {
    let letters: Vec<char> = text.chars().collect();
    let mut now: Vec<usize> = Vec::new();
    for at in 0..=letters.len() {
        // A search may begin anywhere.
        let mut open = std::mem::take(&mut now);
        open.push(0);
        let mut seen = vec![false; program.len()];
        let mut waiting = Vec::new();
        while let Some(step) = open.pop() {
            if std::mem::replace(&mut seen[step], true) {
                continue;
            }
            match &program[step] {
                Step::Accept => return true,
                Step::Jump(to) => open.push(*to),
                Step::Fork(one, other) => open.extend([*one, *other]),
                Step::Start if at == 0 => open.push(step + 1),
                Step::End if at == letters.len() => open.push(step + 1),
                Step::Start | Step::End => {}
                Step::Letter { .. } => waiting.push(step),
            }
        }
        let Some(letter) = letters.get(at) else { return false };
        for step in waiting {
            if let Step::Letter { negated, ranges } = &program[step]
                && ranges.iter().any(|(low, high)| (low..=high).contains(&letter)) != *negated
            {
                now.push(step + 1);
            }
        }
    }
    false
}

struct Parser {
    rest: std::collections::VecDeque<char>,
    program: Vec<Step>,
}

impl Parser {
    /// `a|b|c` up to the end or a closing parenthesis. `None`: not a pattern, or too big a one.
    fn alternatives(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let start = self.program.len();
        let mut ends = Vec::new();
        let mut branch = start;
        loop {
            self.sequence(depth)?;
            if self.rest.front() != Some(&'|') {
                break;
            }
            self.rest.pop_front();
            // The branch so far becomes one way of a fork, what follows the other.
            self.insert(branch, Step::Fork(branch + 1, 0))?;
            ends.push(self.program.len());
            self.program.push(Step::Jump(0));
            let next = self.program.len();
            self.program[branch] = Step::Fork(branch + 1, next);
            branch = next;
        }
        let after = self.program.len();
        for end in ends {
            self.program[end] = Step::Jump(after);
        }
        Some(())
    }

    fn sequence(&mut self, depth: usize) -> Option<()> {
        while let Some(letter) = self.rest.front().copied() {
            if letter == '|' || (letter == ')' && depth > 0) {
                break;
            }
            let start = self.program.len();
            self.item(depth)?;
            self.repetition(start)?;
        }
        Some(())
    }

    fn item(&mut self, depth: usize) -> Option<()> {
        let step = match self.rest.pop_front()? {
            '(' => {
                if self.rest.front() == Some(&'?') {
                    // Only the group that captures nothing: flags change what letters mean.
                    let marks = (self.rest.pop_front(), self.rest.pop_front());
                    if marks != (Some('?'), Some(':')) {
                        return None;
                    }
                }
                self.alternatives(depth + 1)?;
                return (self.rest.pop_front() == Some(')')).then_some(());
            }
            '*' | '+' | '?' | ')' => return None,
            '^' => Step::Start,
            '$' => Step::End,
            '.' => Step::Letter { negated: true, ranges: vec![('\n', '\n')] },
            '[' => self.class()?,
            '\\' => {
                let (negated, ranges) = escape(self.rest.pop_front()?)?;
                Step::Letter { negated, ranges }
            }
            letter => Step::Letter { negated: false, ranges: vec![(letter, letter)] },
        };
        self.push(step)
    }

    /// After `[`.
    fn class(&mut self) -> Option<Step> {
        let negated = self.rest.front() == Some(&'^');
        if negated {
            self.rest.pop_front();
        }
        let mut ranges = Vec::new();
        loop {
            let low = match self.rest.pop_front()? {
                ']' if !ranges.is_empty() => return Some(Step::Letter { negated, ranges }),
                '\\' => match escape(self.rest.pop_front()?)? {
                    (false, list) if list.len() == 1 && list[0].0 == list[0].1 => list[0].0,
                    (false, list) => {
                        ranges.extend(list);
                        continue;
                    }
                    (true, _) => return None,
                },
                letter => letter,
            };
            let is_range = self.rest.front() == Some(&'-') && self.rest.get(1).is_some_and(|c| *c != ']');
            let high = if is_range {
                self.rest.pop_front();
                match self.rest.pop_front()? {
                    '\\' => self.rest.pop_front()?,
                    letter => letter,
                }
            } else {
                low
            };
            if low > high {
                return None;
            }
            ranges.push((low, high));
        }
    }

    /// What follows the item that begins at `start`. A lazy mark changes nothing: only whether it matches is asked.
    fn repetition(&mut self, start: usize) -> Option<()> {
        let (least, most) = match self.rest.front() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => match self.counts() {
                Some(counts) => counts,
                // Go takes a brace that counts nothing for itself.
                None => return Some(()),
            },
            _ => return Some(()),
        };
        // The sign, or the brace that ends the counts.
        self.rest.pop_front();
        if self.rest.front() == Some(&'?') {
            self.rest.pop_front();
        }
        let item: Vec<Step> = self.program.split_off(start);
        for _ in 0..least {
            self.copy(&item, start)?;
        }
        match most {
            None => {
                // L: fork(item, after) item jump(L)
                let fork = self.program.len();
                self.push(Step::Accept)?;
                self.copy(&item, start)?;
                self.push(Step::Jump(fork))?;
                self.program[fork] = Step::Fork(fork + 1, self.program.len());
            }
            Some(most) => {
                for _ in least..most {
                    let fork = self.program.len();
                    self.push(Step::Accept)?;
                    self.copy(&item, start)?;
                    self.program[fork] = Step::Fork(fork + 1, self.program.len());
                }
            }
        }
        Some(())
    }

    /// `{n}`, `{n,}` or `{n,m}`; leaves the closing brace in place. `None` takes nothing.
    fn counts(&mut self) -> Option<(usize, Option<usize>)> {
        let end = self.rest.iter().position(|letter| *letter == '}')?;
        let text: String = self.rest.iter().skip(1).take(end - 1).collect();
        let number = |text: &str| text.parse::<usize>().ok().filter(|count| *count <= 1000);
        let counts = match text.split_once(',') {
            None => number(&text).map(|count| (count, Some(count)))?,
            Some((least, "")) => (number(least)?, None),
            Some((least, most)) => (number(least)?, Some(number(most)?)),
        };
        if counts.1.is_some_and(|most| most < counts.0) {
            return None;
        }
        self.rest.drain(..end);
        Some(counts)
    }

    fn push(&mut self, step: Step) -> Option<()> {
        self.program.push(step);
        (self.program.len() < MAX_STEPS).then_some(())
    }

    /// Appends a copy of `item`, whose places were counted from `start`.
    fn copy(&mut self, item: &[Step], start: usize) -> Option<()> {
        let shift = self.program.len() - start;
        for step in item {
            self.push(match step {
                Step::Fork(one, other) => Step::Fork(one + shift, other + shift),
                Step::Jump(to) => Step::Jump(to + shift),
                other => other.clone(),
            })?;
        }
        Some(())
    }

    /// Makes room for a step at `at`; places at or behind it move by one.
    fn insert(&mut self, at: usize, step: Step) -> Option<()> {
        for other in &mut self.program[at..] {
            match other {
                Step::Fork(one, two) => {
                    *one += usize::from(*one >= at);
                    *two += usize::from(*two >= at);
                }
                Step::Jump(to) => *to += usize::from(*to >= at),
                _ => {}
            }
        }
        self.program.insert(at, step);
        (self.program.len() < MAX_STEPS).then_some(())
    }
}

/// What `\letter` stands for: whether negated, and ranges.
fn escape(letter: char) -> Option<(bool, Vec<(char, char)>)> {
    Some(match letter {
        'd' | 'D' => (letter == 'D', vec![('0', '9')]),
        'w' | 'W' => (letter == 'W', vec![('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        's' | 'S' => (letter == 'S', vec![('\t', '\n'), ('\x0c', '\r'), (' ', ' ')]),
        'n' => (false, vec![('\n', '\n')]),
        't' => (false, vec![('\t', '\t')]),
        other if !other.is_alphanumeric() => (false, vec![(other, other)]),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, text, wanted) in [
            ("web", "my-web-1", true),
            ("^web$", "web", true),
            ("^web$", "web1", false),
            ("^/?web$", "/web", true),
            ("^web", "a-web", false),
            ("web|db", "the-db", true),
            ("^(web|db)$", "db", true),
            ("^(web|db|x)$", "x", true),
            ("^(web|db)$", "dbx", false),
            ("^(?:a|b)+c$", "ababc", true),
            ("we.", "wex", true),
            ("w.*b$", "wxyzb", true),
            ("^wb*$", "w", true),
            ("^wb+$", "w", false),
            ("^wb?$", "wbb", false),
            ("^[a-c]{2,3}$", "abc", true),
            ("^[a-c]{2,3}$", "abca", false),
            ("^[a-c]{2}$", "ab", true),
            ("^x{2,}$", "xxxx", true),
            ("[^0-9]$", "a1", false),
            (r"^a\.b$", "a.b", true),
            (r"^a\.b$", "axb", false),
            (r"^\d+$", "123", true),
            (r"^[\w-]+$", "a-b_1", true),
            ("^(a(b|c)?)*$", "abaca", true),
            ("^(a|b|)$", "", true),
            ("", "anything", true),
            ("x{", "x{", true),
            // Not patterns: they match only themselves.
            ("*web", "my*web", false),
            ("*web", "*web", true),
            ("(web", "web", false),
            ("[web", "web", false),
            ("web)", "web", false),
            ("(?i)web", "WEB", false),
            ("a{2,1}", "aa", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), wanted, "{pattern:?} {text:?}");
        }
    }

    /// Exponential for a backtracking matcher, and too big for a program.
    #[test]
    fn no_pattern_is_slow_or_big() {
        let text = "a".repeat(2000);
        assert!(!Pattern::new("^(a*)*(a*)*(a*)*b$").matches(&text));
        assert!(!Pattern::new("((((a{1000}){1000}){1000}){1000})").matches(&text));
        assert!(!Pattern::new(&"(".repeat(100_000)).matches(&text));
        assert!(!Pattern::new(&"a?".repeat(100_000)).matches("b"));
        assert!(!Pattern::new(&format!("{}b", "(a|".repeat(1000))).matches("b"));
    }
}
