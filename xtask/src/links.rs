//! `cargo xtask links`: dead links in the documentation that rustdoc writes, and pages of
//! `recurrent` without an example.
//!
//! rustdoc's own lint does not see a link to a crate that is documented later, or one in a text
//! that it repeats on the page of another item.

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

const HELP: &str = "\
Usage: cargo xtask links DIR

Checks that each link in the pages of DIR (target/doc, after `cargo doc --no-deps`) which leads to
another page of DIR has a target: the page, and the place in the page. Crates must be documented in
the order of their dependence, as in .ci/run.

Checks also that each page of an item in `recurrent` has an example.
";

/// Beginnings of links in texts of other crates, which rustdoc repeats on pages of types with the
/// traits of these crates.
const FOREIGN: [&str; 1] = ["ProgressIterator::"];

/// The crate whose items need examples.
const FRONT: &str = "recurrent";
/// The kinds of items that need one, as the pages' names begin.
const ITEMS: [&str; 6] = ["struct.", "enum.", "trait.", "fn.", "macro.", "type."];
/// What `Device` consists of: only its methods are for users.
const PARTS: [&str; 3] = [
    "enum.Dispatch.html",
    "enum.DispatchBuffer.html",
    "enum.DispatchSwapped.html",
];

pub(crate) fn run(args: &[String]) -> ExitCode {
    let dir = match args {
        [help] if help == "--help" || help == "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        [dir] => Path::new(dir),
        _ => {
            eprint!("links: needs a folder\n\n{HELP}");
            return ExitCode::FAILURE;
        }
    };
    let site = match Site::read(dir) {
        Ok(site) => site,
        Err(error) => {
            eprintln!("links: {}: {error}", dir.display());
            return ExitCode::FAILURE;
        }
    };
    let dead = site.dead_links();
    for (page, link) in &dead {
        eprintln!("{}: no target of link `{link}`", page.display());
    }
    let bare = site.without_example();
    for page in &bare {
        eprintln!("{}: no example", page.display());
    }
    eprintln!(
        "links: {} pages, {} dead links, {} items without an example",
        site.pages,
        dead.len(),
        bare.len()
    );
    match dead.is_empty() && bare.is_empty() && site.pages > 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The files of a documentation, with their paths in it.
#[derive(Default)]
struct Site {
    files: BTreeMap<PathBuf, File>,
    pages: usize,
}

#[derive(Default)]
struct File {
    links: Vec<String>,
    ids: HashSet<String>,
    /// Where the browser goes from here.
    redirect: Option<String>,
    has_example: bool,
}

impl Site {
    fn read(root: &Path) -> io::Result<Self> {
        let mut site = Self::default();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let inside = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
                let text = match is_page(&inside) {
                    true => fs::read_to_string(&path)?,
                    false => String::new(),
                };
                site.insert(inside, &text);
            }
        }
        Ok(site)
    }

    fn insert(&mut self, path: PathBuf, text: &str) {
        self.pages += usize::from(is_page(&path));
        let file = match is_page(&path) {
            true => File::parse(text),
            false => File::default(),
        };
        self.files.insert(path, file);
    }

    fn dead_links(&self) -> Vec<(&Path, &str)> {
        let links = self.files.iter().flat_map(|(page, file)| {
            let links = file.links.iter().map(String::as_str);
            links.map(|link| (page.as_path(), link))
        });
        links
            .filter(|(_, link)| !FOREIGN.iter().any(|start| link.starts_with(start)))
            .filter(|(page, link)| !is_external(link) && !self.has_target(page, link))
            .collect()
    }

    fn without_example(&self) -> Vec<&Path> {
        let is_item = |page: &Path| {
            let name = page.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| {
                ITEMS.iter().any(|item| name.starts_with(item)) && !PARTS.contains(&name)
            })
        };
        let pages = self.files.iter().filter(|(page, file)| {
            page.starts_with(FRONT) && is_page(page) && file.redirect.is_none() && is_item(page)
        });
        let bare = pages.filter(|(_, file)| !file.has_example);
        bare.map(|(page, _)| page.as_path()).collect()
    }

    fn has_target(&self, page: &Path, link: &str) -> bool {
        let (path, place) = link.split_once('#').unwrap_or((link, ""));
        let path = path.split('?').next().unwrap_or_default();
        let path = match path {
            "" => page.to_path_buf(),
            path => beside(page, path),
        };
        let Some(file) = self.files.get(&path) else {
            return false;
        };
        match &file.redirect {
            Some(to) if !place.is_empty() => self.has_target(&path, &format!("{to}#{place}")),
            // Lines of source code have no ids of their own.
            _ => place.is_empty() || !is_page(&path) || file.ids.contains(place),
        }
    }
}

impl File {
    fn parse(html: &str) -> Self {
        let anchors = html.split("<a ").skip(1);
        let refresh = html.split_once("http-equiv=\"refresh\" content=\"0;URL=");
        Self {
            links: anchors
                .filter_map(|tag| value(tag.split_once("href=")?.1))
                .collect(),
            ids: html.split(" id=").skip(1).filter_map(value).collect(),
            has_example: html.contains("class=\"rust rust-example-rendered\""),
            redirect: refresh.map(|(_, rest)| decoded(rest.split('"').next().unwrap_or_default())),
        }
    }
}

/// Whether links lead from and into this file. rustdoc makes links between sources of lines only,
/// and its help and settings link to a page for all crates, which it does not write.
fn is_page(path: &Path) -> bool {
    let is_html = path
        .extension()
        .is_some_and(|extension| extension == "html");
    let own = ["help.html", "settings.html"].map(Path::new);
    is_html && !path.starts_with("src") && !own.contains(&path)
}

fn is_external(link: &str) -> bool {
    let scheme = link.split_once(':').map_or("", |(scheme, _)| scheme);
    matches!(scheme, "http" | "https" | "mailto" | "javascript" | "data")
}

/// The decoded value of an attribute in double quotes, from the first quote on.
fn value(quoted: &str) -> Option<String> {
    let rest = quoted.strip_prefix('"')?;
    rest.split_once('"').map(|(value, _)| decoded(value))
}

/// Replaces the escapes of HTML and of addresses.
fn decoded(text: &str) -> String {
    let escapes = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ];
    let plain = escapes
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let mut bytes = Vec::new();
    let mut rest = plain.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A path relative to the folder of `page`.
fn beside(page: &Path, link: &str) -> PathBuf {
    let mut path = page.parent().unwrap_or(Path::new("")).to_path_buf();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead_links(pages: &[(&str, &str)]) -> Vec<String> {
        let mut site = Site::default();
        for (path, text) in pages {
            site.insert(path.into(), text);
        }
        let dead = site.dead_links().into_iter();
        dead.map(|(page, link)| format!("{} {link}", page.display()))
            .collect()
    }

    #[test]
    fn pages_and_places_that_do_not_exist_are_found() {
        let start = r##"<section id="impl-From%3CA%3E"><a class="x" href="b/struct.B.html">B</a>
            <a href="b/struct.B.html#method.new">new</a> <a href="b/struct.B.html#gone">gone</a>
            <a href="struct.B.html">gone</a> <a href="Self::cast">gone</a>
            <a href="#impl-From&lt;A&gt;">here</a> <a href="https://example.org/x">web</a>
            <a href="../src/a/lib.rs.html#7-9">source</a></section>"##;
        let pages = [
            ("a/index.html", start),
            (
                "a/b/struct.B.html",
                r#"<h4 id="method.new"></h4><a href="../index.html">a</a>"#,
            ),
            (
                "src/a/lib.rs.html",
                r#"<a href="nowhere.html">not checked</a>"#,
            ),
        ];
        assert_eq!(
            dead_links(&pages),
            [
                "a/index.html b/struct.B.html#gone",
                "a/index.html struct.B.html",
                "a/index.html Self::cast",
            ]
        );
    }

    #[test]
    fn items_without_example_are_found() {
        let example = r#"<pre class="rust rust-example-rendered">"#;
        let redirect = r#"<meta http-equiv="refresh" content="0;URL=../struct.B.html">"#;
        let mut site = Site::default();
        for (path, text) in [
            ("recurrent/struct.A.html", example),
            ("recurrent/struct.B.html", ""),
            ("recurrent/m/struct.B.html", redirect),
            ("recurrent/m/index.html", ""),
            ("recurrent/enum.Dispatch.html", ""),
            ("rnn_core/struct.C.html", ""),
        ] {
            site.insert(path.into(), text);
        }
        assert_eq!(
            site.without_example(),
            [Path::new("recurrent/struct.B.html")]
        );
    }

    #[test]
    fn places_are_looked_up_behind_redirects() {
        let redirect = r#"<meta http-equiv="refresh" content="0;URL=../../a/struct.B.html">"#;
        let pages = [
            ("a/m/struct.B.html", redirect),
            ("a/struct.B.html", r#"<h4 id="method.new"></h4>"#),
            (
                "a/index.html",
                r#"<a href="m/struct.B.html#method.new">x</a><a href="m/struct.B.html#old">y</a>"#,
            ),
        ];
        assert_eq!(dead_links(&pages), ["a/index.html m/struct.B.html#old"]);
    }

    #[test]
    fn texts_of_other_crates_are_excepted() {
        let foreign = r#"<a href="ProgressIterator::progress_with">x</a>"#;
        assert!(dead_links(&[("a/index.html", foreign)]).is_empty());
    }
}
