//! Reading Rust as tokens: enough to find words and to follow paths, never fooled by comments,
//! strings, characters or lifetimes.

/// An identifier, a string literal (with its quotes) or one punctuation mark (`::` counts as one).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// The tokens of `source`, without comments, lifetimes, numbers and characters.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let starts = |i: usize, what: &str| what.chars().enumerate().all(|(k, c)| chars.get(i + k) == Some(&c));
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut found, mut i, mut line) = (Vec::new(), 0, 1);
    while i < chars.len() {
        let begin = i;
        if starts(i, "//") {
            while i < chars.len() && chars[i] != '\n' {
                i += 1;
            }
        } else if starts(i, "/*") {
            let mut depth = 0;
            while i < chars.len() {
                if starts(i, "/*") {
                    (depth, i) = (depth + 1, i + 2);
                } else if starts(i, "*/") {
                    (depth, i) = (depth - 1, i + 2);
                } else {
                    i += 1;
                }
                if depth == 0 {
                    break;
                }
            }
        } else if let Some(end) = string_end(&chars, i) {
            i = end;
            found.push(Token { text: chars[begin..i].iter().collect(), line });
        } else if chars[i] == '\'' {
            // 'x' and '\…' are characters; 'name without a closing quote is a lifetime.
            i += 1;
            if chars.get(i) == Some(&'\\') {
                i += 2;
                while i < chars.len() && chars[i] != '\'' {
                    i += 1;
                }
                i += 1;
            } else if chars.get(i + 1) == Some(&'\'') {
                i += 2;
            } else {
                while i < chars.len() && is_word(chars[i]) {
                    i += 1;
                }
            }
        } else if is_word(chars[i]) {
            while i < chars.len() && is_word(chars[i]) {
                i += 1;
            }
            if !chars[begin].is_numeric() {
                found.push(Token { text: chars[begin..i].iter().collect(), line });
            }
        } else {
            i += if starts(i, "::") { 2 } else { 1 };
            if !chars[begin].is_whitespace() {
                found.push(Token { text: chars[begin..i].iter().collect(), line });
            }
        }
        line += chars[begin..i.min(chars.len())].iter().filter(|&&c| c == '\n').count();
    }
    found
}

/// Past the end of the string literal that starts at `i` (`"…"`, `b"…"`, `r#"…"#`, …), if one does.
fn string_end(chars: &[char], i: usize) -> Option<usize> {
    let mut at = i;
    while at < i + 2 && matches!(chars.get(at), Some('b' | 'c' | 'r')) {
        at += 1;
    }
    let raw = at > i && chars[at - 1] == 'r';
    let hashes = if raw { chars[at..].iter().take_while(|&&c| c == '#').count() } else { 0 };
    if chars.get(at + hashes) != Some(&'"') {
        return None;
    }
    at += hashes + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' if !raw => at += 1,
            '"' if chars[at + 1..].iter().take_while(|&&c| c == '#').count() >= hashes => return Some(at + 1 + hashes),
            _ => {}
        }
        at += 1;
    }
    Some(at)
}

/// A file's tokens, each with the module it stands in and whether only test builds compile it.
pub(crate) struct Reading {
    pub(crate) tokens: Vec<Token>,
    /// Depth of inline modules around each token.
    inline: Vec<Vec<String>>,
    pub(crate) test_only: Vec<bool>,
}

impl Reading {
    pub(crate) fn new(source: &str) -> Self {
        let tokens = tokens(source);
        let mut reading =
            Reading { inline: vec![Vec::new(); tokens.len()], test_only: vec![false; tokens.len()], tokens };
        for i in 0..reading.tokens.len() {
            if reading.is(i, "#") {
                let inner = reading.is(i + 1, "!");
                let open = i + 1 + usize::from(inner);
                let close = reading.closing(open);
                let attribute: String = reading.tokens[open..=close].iter().map(|t| t.text.as_str()).collect();
                if ["[cfg(test)]", "[cfg(any(test,feature=\"testing\"))]"].contains(&attribute.as_str()) {
                    let end = if inner { reading.tokens.len() - 1 } else { reading.item_end(close + 1) };
                    reading.test_only[i..=end].fill(true);
                }
            }
            if reading.is(i, "mod") && reading.is(i + 2, "{") {
                let name = reading.tokens[i + 1].text.clone();
                let end = reading.closing(i + 2);
                for inline in &mut reading.inline[i + 3..=end] {
                    inline.push(name.clone());
                }
            }
        }
        reading
    }

    pub(crate) fn is(&self, i: usize, text: &str) -> bool {
        self.tokens.get(i).is_some_and(|token| token.text == text)
    }

    /// The bracket that closes the one at `open`, or the last token.
    fn closing(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for i in open..self.tokens.len() {
            match self.tokens[i].text.as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return i;
            }
        }
        self.tokens.len() - 1
    }

    /// The last token of the item that starts at `i`: its `;` or the `}` of its body.
    fn item_end(&self, mut i: usize) -> usize {
        while i < self.tokens.len() {
            match self.tokens[i].text.as_str() {
                ";" => return i,
                "{" => return self.closing(i),
                "(" | "[" => i = self.closing(i) + 1,
                _ => i += 1,
            }
        }
        self.tokens.len() - 1
    }

    /// Every path from `crate`, `super` or `zofo`, resolved from the crate root, with its first token.
    pub(crate) fn rooted_paths(&self, module: &[String]) -> Vec<(usize, Vec<String>)> {
        let mut paths = Vec::new();
        for i in 0..self.tokens.len() {
            let rooted = ["crate", "super", "zofo"].iter().any(|root| self.is(i, root));
            if rooted && self.is(i + 1, "::") && !(i > 0 && self.is(i - 1, "::")) {
                let here = [module, &self.inline[i]].concat();
                self.path_tree(i, here, &mut paths);
            }
        }
        paths
    }

    /// Follows the path (or the `{…}` group) at `i` from module `at`; answers the token after it.
    fn path_tree(&self, mut i: usize, mut at: Vec<String>, paths: &mut Vec<(usize, Vec<String>)>) -> usize {
        let begin = i;
        loop {
            match self.tokens.get(i).map(|token| token.text.as_str()) {
                Some("{") => {
                    i += 1;
                    while i < self.tokens.len() && !self.is(i, "}") {
                        i = self.path_tree(i, at.clone(), paths);
                        // `as name` and the comma lead to the next branch.
                        while i < self.tokens.len() && !self.is(i, ",") && !self.is(i, "}") {
                            i += 1;
                        }
                        i += usize::from(self.is(i, ","));
                    }
                    return i + 1;
                }
                Some("crate" | "zofo") => at.clear(),
                Some("super") => drop(at.pop()),
                Some("self") => {}
                Some(segment) => at.push(segment.to_owned()),
                None => return i,
            }
            i += 1;
            if !self.is(i, "::") {
                paths.push((begin, at));
                return i;
            }
            i += 1;
        }
    }
}
