//! Circles of modules: modules of one folder that use each other, directly or through others.
//!
//! A file uses another if a path in it, in a `use` or elsewhere, leads there. A folder's re-export
//! is followed to the file that defines the name. What the root of a crate re-exports is the
//! crate's interface, which all modules may use. Tests inside a file are not read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Item, UseTree};

use super::{Problem, Source};

type Segments = Vec<String>;

pub(super) fn check(sources: &[Source]) -> Result<Vec<Problem>, Box<dyn Error>> {
    let roots = sources.iter().filter_map(|source| {
        let root = source.path.parent()?;
        let name = source.path.file_name()?;
        let is_root = root.ends_with("src") && (name == "lib.rs" || name == "main.rs");
        is_root.then_some(root)
    });
    let mut problems = Vec::new();
    for root in roots.collect::<BTreeSet<_>>() {
        let files = sources
            .iter()
            .filter(|s| s.path.starts_with(root) && s.has_extension("rs"));
        let modules = read(root, files)?;
        problems.extend(circles(&modules));
    }
    Ok(problems)
}

/// A module with a file of its own.
struct Module {
    file: PathBuf,
    /// The names that `use` brings in, with their paths from the root of the crate.
    names: HashMap<String, Segments>,
    /// All paths that the file mentions, from the root of the crate.
    paths: Vec<Segments>,
}

fn read<'a>(
    root: &Path,
    files: impl Iterator<Item = &'a Source>,
) -> Result<BTreeMap<Segments, Module>, Box<dyn Error>> {
    let mut modules = BTreeMap::new();
    for source in files {
        let name = module_name(source.path.strip_prefix(root)?);
        let parsed =
            syn::parse_file(&source.text).map_err(|e| format!("{}: {e}", source.path.display()))?;
        let mut module = Module {
            file: source.path.clone(),
            names: HashMap::new(),
            paths: Vec::new(),
        };
        for item in parsed.items.iter().filter(|item| !is_test(item)) {
            if let Item::Use(item) = item {
                flatten(&item.tree, &mut Vec::new(), &name, &mut module);
            } else {
                find_paths(item.to_token_stream(), &name, &mut module.paths);
            }
        }
        // Paths that begin with a name that `use` brings in.
        let through = module.paths.iter_mut().filter_map(|path| {
            let whole = module.names.get(path.first()?)?;
            Some((path, whole.clone()))
        });
        for (path, mut whole) in through {
            whole.extend(path.drain(1..));
            *path = whole;
        }
        module.paths.extend(module.names.values().cloned());
        modules.insert(name, module);
    }
    Ok(modules)
}

/// The module of a file; `lib.rs`, `main.rs` and `mod.rs` stand for their folders.
fn module_name(path: &Path) -> Segments {
    let mut name: Segments = path
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if matches!(
        name.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        name.pop();
    }
    name
}

fn is_test(item: &Item) -> bool {
    let attributes = match item {
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        _ => return false,
    };
    let text = |a: &syn::Attribute| a.meta.to_token_stream().to_string();
    attributes
        .iter()
        .any(|a| a.path().is_ident("cfg") && text(a).contains("test"))
}

/// Splits a `use` into its paths.
fn flatten(tree: &UseTree, prefix: &mut Segments, module: &[String], into: &mut Module) {
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, module, into);
            prefix.pop();
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, prefix, module, into);
            }
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            let mut path = prefix.clone();
            let known = match name.as_str() {
                "self" => prefix.last().cloned().unwrap_or_default(),
                _ => {
                    path.push(name.clone());
                    name
                }
            };
            into.names
                .extend(from_root(&path, module).map(|path| (known, path)));
        }
        UseTree::Rename(rename) => {
            let mut path = prefix.clone();
            path.push(rename.ident.to_string());
            let known = rename.rename.to_string();
            into.names
                .extend(from_root(&path, module).map(|path| (known, path)));
        }
        UseTree::Glob(_) => into.paths.extend(from_root(prefix, module)),
    }
}

/// The path from the root of the crate; `None` if it leads to another crate. A path that begins
/// with a plain name may lead to a child module.
fn from_root(path: &[String], module: &[String]) -> Option<Segments> {
    let (first, rest) = path.split_first()?;
    let mut whole = match first.as_str() {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module.split_last()?.1.to_vec(),
        _ => [module, std::slice::from_ref(first)].concat(),
    };
    for segment in rest {
        match segment.as_str() {
            "super" => {
                whole.pop();
            }
            segment => whole.push(segment.to_owned()),
        }
    }
    Some(whole)
}

/// Finds the paths `a::b::..` of an item, those in calls of macros too.
fn find_paths(tokens: TokenStream, module: &[String], paths: &mut Vec<Segments>) {
    let mut path: Segments = Vec::new();
    let mut colons = 0;
    let mut end = |path: &mut Segments| {
        if path.len() > 1 {
            let is_relative = matches!(path[0].as_str(), "crate" | "self" | "super");
            // Other paths begin with a child module or with a name that `use` brings in.
            paths.extend(if is_relative {
                from_root(path, module)
            } else {
                Some(path.clone())
            });
        }
        path.clear();
    };
    let mut groups = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                if colons != 2 {
                    end(&mut path);
                }
                path.push(ident.to_string());
                colons = 0;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            other => {
                end(&mut path);
                colons = 0;
                if let TokenTree::Group(group) = other {
                    groups.push(group.stream());
                }
            }
        }
    }
    end(&mut path);
    for group in groups {
        find_paths(group, module, paths);
    }
}

/// The module that defines what a path from the root names.
fn resolve(
    modules: &BTreeMap<Segments, Module>,
    path: &[String],
    depth: usize,
) -> Option<Segments> {
    // Re-exports of re-exports end somewhere; this bound is for code that does not compile.
    if depth > 16 {
        return None;
    }
    let mut at: Segments = Vec::new();
    for (i, segment) in path.iter().enumerate() {
        let mut child = at.clone();
        child.push(segment.clone());
        if modules.contains_key(&child) {
            at = child;
            continue;
        }
        let module = modules.get(&at)?;
        if let Some(whole) = module.names.get(segment)
            && whole[..] != path[..=i]
        {
            if at.is_empty() {
                return None;
            }
            let whole = [&whole[..], &path[i + 1..]].concat();
            return resolve(modules, &whole, depth + 1);
        }
        break;
    }
    modules.contains_key(&at).then_some(at)
}

/// The circles among the modules of each folder. A file of one subfolder that uses a file of
/// another counts for the two subfolders; a folder and the files in it may use each other.
fn circles(modules: &BTreeMap<Segments, Module>) -> Vec<Problem> {
    // For each folder: for each module in it, the modules that it uses and by which file.
    let mut folders: BTreeMap<&[String], BTreeMap<&str, BTreeMap<&str, &Path>>> = BTreeMap::new();
    let all: Vec<(&Segments, &Path, Vec<Segments>)> = modules
        .iter()
        .map(|(name, module)| (name, module.file.as_path(), used(modules, name, module)))
        .collect();
    for (name, file, used) in &all {
        for other in used {
            let common = name.iter().zip(other).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (name.get(common), other.get(common)) {
                let folder = folders.entry(&name[..common]).or_default();
                folder.entry(from).or_default().insert(to, file);
                folder.entry(to).or_default();
            }
        }
    }
    let mut problems = Vec::new();
    for uses in folders.values_mut() {
        keep_circles(uses);
        for (name, used) in &*uses {
            for (other, file) in used {
                problems.push(Problem {
                    file: file.to_path_buf(),
                    line: 0,
                    text: format!("`{name}` uses `{other}`, which uses `{name}`, directly or not"),
                });
            }
        }
    }
    problems
}

/// The modules that a module uses.
fn used(modules: &BTreeMap<Segments, Module>, name: &Segments, module: &Module) -> Vec<Segments> {
    let mut used = Vec::new();
    for path in &module.paths {
        let direct = resolve(modules, path, 0).filter(|found| !found.is_empty());
        // A plain path may begin with a child module.
        let child = || resolve(modules, &[&name[..], path].concat(), 0);
        used.extend(direct.or_else(child));
    }
    used
}

/// Keeps the uses that are part of a circle: those from whose end a path leads back.
fn keep_circles(uses: &mut BTreeMap<&str, BTreeMap<&str, &Path>>) {
    let all = uses.clone();
    let reaches = |from: &str, to: &str| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(at) = next.pop() {
            if at == to {
                return true;
            }
            if seen.insert(at) {
                next.extend(all[at].keys());
            }
        }
        false
    };
    for (name, used) in uses {
        used.retain(|other, _| reaches(other, name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files
            .iter()
            .map(|(path, text)| source(path, text))
            .collect();
        let mut problems = check(&sources).unwrap();
        problems.sort();
        problems
            .into_iter()
            .map(|p| p.file.display().to_string())
            .collect()
    }

    #[test]
    fn circles_through_uses_paths_macros_and_reexports_are_found() {
        let root = ("a/src/lib.rs", "mod x; mod y; pub use x::X;");
        let x = (
            "a/src/x.rs",
            "pub struct X; fn f() { vec![crate::y::g()]; }",
        );
        for y in [
            "use crate::x::X;",
            "use super::x;",
            "fn g() { crate::x::f() }",
            "use crate::{x::X as Z};",
            "use crate::x; fn g() { x::f() }",
        ] {
            assert_eq!(
                found(&[root, x, ("a/src/y.rs", y)]),
                ["a/src/x.rs", "a/src/y.rs"],
                "{y}"
            );
        }
        for y in [
            "",
            "use crate::X;",
            "use std::x::X;",
            "#[cfg(test)] mod tests { use crate::x::X; }",
        ] {
            assert!(found(&[root, x, ("a/src/y.rs", y)]).is_empty(), "{y}");
        }
    }

    #[test]
    fn a_folder_and_its_files_may_use_each_other_but_not_two_folders() {
        let root = ("a/src/lib.rs", "mod m; mod n;");
        let folder = ("a/src/m/mod.rs", "mod c; use self::c::C; pub struct M;");
        let other = ("a/src/n/mod.rs", "mod d; pub use self::d::D;");
        let c = (
            "a/src/m/c.rs",
            "use super::M; use crate::n::D; pub struct C;",
        );
        let d = |text| ("a/src/n/d.rs", text);
        assert!(found(&[root, folder, other, c, d("pub struct D;")]).is_empty());
        let circle = [root, folder, other, c, d("use crate::m::M; pub struct D;")];
        assert_eq!(found(&circle), ["a/src/m/c.rs", "a/src/n/d.rs"]);
    }

    #[test]
    fn a_user_of_a_circle_is_not_part_of_it() {
        let files = [
            ("a/src/lib.rs", "mod w; mod x; mod y; mod z;"),
            ("a/src/w.rs", "use crate::x::X;"),
            ("a/src/x.rs", "use crate::y::Y; pub struct X;"),
            (
                "a/src/y.rs",
                "use crate::x::X; use crate::z::Z; pub struct Y;",
            ),
            ("a/src/z.rs", "pub struct Z;"),
        ];
        assert_eq!(found(&files), ["a/src/x.rs", "a/src/y.rs"]);
    }
}
