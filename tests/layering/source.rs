//! A source file taken apart far enough for the checks: code without comments and strings, the strings and comments
//! themselves, and which lines belong to inline tests.

use std::ops::Range;
use std::path::Path;

/// One file of `src/`.
pub struct Source {
    /// Path below `src/`, with `/`.
    pub path: String,
    /// Lines in the file.
    pub lines: usize,
    /// The text with comments, string contents and character literals blanked; byte positions are kept.
    pub code: String,
    /// The same with inline `#[cfg(test)]` modules blanked too.
    pub product: String,
    /// String literals outside inline tests: line number and content as written.
    pub strings: Vec<(usize, String)>,
    /// Comments: line number and content as written.
    pub comments: Vec<(usize, String)>,
}

impl Source {
    /// Takes a text apart.
    pub fn new(path: &str, text: &str) -> Self {
        let Masked { code, mut strings, comments } = mask(text);
        let tests = test_modules(&code);
        let product = blanked(&code, &tests);
        let lines_of_tests: Vec<Range<usize>> =
            tests.iter().map(|t| line_of(&code, t.start)..line_of(&code, t.end) + 1).collect();
        strings.retain(|(line, _)| !lines_of_tests.iter().any(|t| t.contains(line)));
        Self { path: path.to_owned(), lines: text.lines().count(), code, product, strings, comments }
    }

    /// Every `.rs` file below a folder, sorted by path.
    pub fn tree(root: &Path) -> Vec<Source> {
        let mut found = Vec::new();
        walk(root, root, &mut found);
        found.sort_by(|a, b| a.path.cmp(&b.path));
        let tests: Vec<String> = found.iter().flat_map(Source::test_files).collect();
        for source in found.iter_mut().filter(|s| tests.contains(&s.path)) {
            source.product = source.product.replace(|c| c != '\n', " ");
        }
        found
    }

    /// The top-level module it belongs to: `error`, `storage`, `bin/vixdisk`; empty for `lib.rs`.
    pub fn room(&self) -> &str {
        let path = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        match path.split('/').collect::<Vec<_>>().as_slice() {
            ["lib"] => "",
            ["bin", tool, ..] => &path[..4 + tool.len()],
            [room, ..] => room,
            [] => "",
        }
    }

    /// How many modules deep the file's own module is below the crate root.
    pub fn depth(&self) -> usize {
        let path = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        match path {
            "lib" => 0,
            _ => path.strip_suffix("/mod").unwrap_or(path).split('/').count(),
        }
    }

    /// The files of modules that it declares for tests only.
    pub fn test_files(&self) -> Vec<String> {
        let folder = match self.path.strip_suffix("mod.rs").or(self.path.strip_suffix("lib.rs")) {
            Some(folder) => folder.to_owned(),
            None => format!("{}/", self.path.trim_end_matches(".rs")),
        };
        let compact: String = self.code.split_whitespace().collect::<Vec<_>>().join(" ");
        let declared = compact.split("#[cfg(test)]").skip(1).filter_map(|rest| {
            let (start, _) = rest.split_once([';', '{'])?;
            let name = start.trim().split_once("mod ")?.1.trim();
            rest.trim_start()[start.trim().len()..].starts_with(';').then(|| name.to_owned())
        });
        declared.flat_map(|name| [format!("{folder}{name}.rs"), format!("{folder}{name}/mod.rs")]).collect()
    }

    /// Lines that are not part of inline tests.
    pub fn product_lines(&self) -> usize {
        let blanked = self
            .code
            .lines()
            .zip(self.product.lines())
            .filter(|(code, product)| !code.trim().is_empty() && product.trim().is_empty());
        self.lines - blanked.count()
    }

    /// The functions outside inline tests.
    pub fn functions(&self) -> Vec<Function> {
        functions(&self.product)
    }
}

/// A function with a body.
pub struct Function {
    /// Its name.
    pub name: String,
    /// Line of its `fn`.
    pub line: usize,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
    /// Four fifths of its lines are rows of a table: `pattern => value,`.
    pub is_table: bool,
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(root, &path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            found.push(Source::new(&name, &std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The line (from 1) of a byte position.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1
}

/// True for bytes of identifiers.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Positions of `word` in `code` where it stands as a word of its own.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).is_none_or(|i| !is_word(bytes[i]));
        before && bytes.get(at + word.len()).is_none_or(|b| !is_word(*b))
    })
}

struct Masked {
    code: String,
    strings: Vec<(usize, String)>,
    comments: Vec<(usize, String)>,
}

/// Blanks comments, string contents and character literals; newlines stay.
fn mask(text: &str) -> Masked {
    let bytes = text.as_bytes();
    let mut out = Masked { code: String::new(), strings: Vec::new(), comments: Vec::new() };
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (end, skip) = match token_end(bytes, at) {
            Token::Code(end) => {
                at = end;
                continue;
            }
            Token::Comment(end) => {
                out.comments.push((line_of(text, at), text[at..end].to_owned()));
                (end, 0)
            }
            Token::Text(end, quote) => {
                out.strings.push((line_of(text, at), text[at + quote..end - 1].to_owned()));
                (end, 0)
            }
            Token::Letter(end) => (end, 0),
        };
        for byte in &mut code[at + skip..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    out.code = String::from_utf8(code).unwrap();
    out
}

/// What starts at a position, and where it ends.
enum Token {
    Code(usize),
    Comment(usize),
    /// End, and how many bytes stand before the content.
    Text(usize, usize),
    Letter(usize),
}

fn token_end(bytes: &[u8], at: usize) -> Token {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return Token::Comment(at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Token::Comment(at + block_comment(rest));
    }
    if is_word(rest[0]) {
        let word = rest.iter().position(|b| !is_word(*b)).unwrap_or(rest.len());
        return match &rest[..word] {
            b"r" | b"br" | b"cr" => raw_string(rest, at, word),
            b"b" | b"c" if rest.get(word) == Some(&b'"') => quoted(rest, at, word + 1),
            b"b" if rest.get(word) == Some(&b'\'') => letter(rest, at, word + 1),
            _ => Token::Code(at + word),
        };
    }
    match rest[0] {
        b'"' => quoted(rest, at, 1),
        b'\'' => letter(rest, at, 1),
        _ => Token::Code(at + 1),
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i < rest.len() {
        if rest[i..].starts_with(b"/*") {
            (depth, i) = (depth + 1, i + 2);
        } else if rest[i..].starts_with(b"*/") {
            (depth, i) = (depth - 1, i + 2);
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8], at: usize, word: usize) -> Token {
    let hashes = rest[word..].iter().take_while(|b| **b == b'#').count();
    if rest.get(word + hashes) != Some(&b'"') {
        return Token::Code(at + word); // a raw identifier, or a variable called r
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let start = word + hashes + 1;
    let length = rest[start..].windows(close.len()).position(|w| w == close).expect("raw string ends");
    Token::Text(at + start + length + close.len(), start)
}

fn quoted(rest: &[u8], at: usize, start: usize) -> Token {
    let mut i = start;
    while rest[i] != b'"' {
        i += if rest[i] == b'\\' { 2 } else { 1 };
    }
    Token::Text(at + i + 1, start)
}

/// A character literal, or the tick of a lifetime or label.
fn letter(rest: &[u8], at: usize, start: usize) -> Token {
    if rest.get(start) == Some(&b'\\') {
        let end = rest[start + 2..].iter().position(|b| *b == b'\'').expect("character literal ends");
        return Token::Letter(at + start + 2 + end + 1);
    }
    let text = std::str::from_utf8(&rest[start..]).unwrap();
    let Some(first) = text.chars().next() else { return Token::Code(at + start) };
    let end = start + first.len_utf8();
    if rest.get(end) == Some(&b'\'') { Token::Letter(at + end + 1) } else { Token::Code(at + start) }
}

/// Position just behind the brace that closes the one at `open`.
pub fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (i, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// Where the modules are that are compiled for tests only.
fn test_modules(code: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = code[from..].find("#[cfg(test)]").map(|at| from + at) {
        let Some(open) = code[start..].find(['{', ';']).map(|i| start + i) else { break };
        from = if code.as_bytes()[open] == b'{' { closing_brace(code, open) } else { open + 1 };
        found.push(start..from);
    }
    found
}

fn blanked(code: &str, ranges: &[Range<usize>]) -> String {
    let mut bytes = code.as_bytes().to_vec();
    for at in ranges.iter().cloned().flatten() {
        if bytes[at] != b'\n' {
            bytes[at] = b' ';
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let after = code[at + 2..].trim_start();
        let name: String = after.bytes().take_while(|b| is_word(*b)).map(char::from).collect();
        if name.is_empty() {
            continue; // a function pointer type
        }
        let Some(open) = body(code, at) else { continue };
        let text = &code[at..closing_brace(code, open)];
        let lines = text.lines().count();
        let rows = text.lines().filter(|l| l.contains("=>") && l.ends_with(',') && !l.contains('{')).count();
        let line = line_of(code, at);
        found.push(Function { name, line, lines, is_table: rows * 5 >= lines * 4 });
    }
    found
}

/// Position of the brace that opens the body of the function whose `fn` stands at `at`.
fn body(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0i32;
    for (i, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(i),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}
