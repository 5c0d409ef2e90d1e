//! Finds cycles among the files of a crate.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::resolve::File;
use super::{Cycle, Import};

/// Imports between files: the importing and the imported one, and the line of the import.
type Imports = BTreeMap<(usize, usize), usize>;

/// Returns the cycles in which no file is a parent module of all others: each is the shortest one through one of the
/// imports, and starts with the first of its files.
pub(super) fn find(files: &BTreeMap<usize, File>, imports: &Imports) -> Vec<Cycle> {
    let mut found = BTreeMap::new();
    for parent in files.values() {
        // All cycles that need the parent's file are permitted: look for those without it, between its children.
        let depth = parent.module.len();
        let is_below = |file: &usize| {
            let module = &files[file].module;
            module.len() > depth && module.starts_with(&parent.module)
        };
        let below: Imports = imports
            .iter()
            .filter(|((from, to), _)| is_below(from) && is_below(to))
            .map(|(import, line)| (*import, *line))
            .collect();
        for (from, to) in below.keys() {
            if files[from].module[depth] == files[to].module[depth] {
                continue;
            }
            if let Some(mut cycle) = shortest(&below, *to, *from) {
                let first = cycle.iter().enumerate().min_by_key(|(_, file)| &files[file].path);
                let first = first.map_or(0, |(place, _)| place);
                cycle.rotate_left(first);
                let members: BTreeSet<usize> = cycle.iter().copied().collect();
                found.entry(members).or_insert(cycle);
            }
        }
    }
    let mut cycles: Vec<Vec<usize>> = found.into_values().collect();
    cycles.sort_by_key(Vec::len);
    cycles.iter().map(|cycle| describe(files, imports, cycle)).collect()
}

/// Returns the files on the shortest way from one file to another, with both.
fn shortest(imports: &Imports, from: usize, to: usize) -> Option<Vec<usize>> {
    let mut before = BTreeMap::from([(from, from)]);
    let mut queue = VecDeque::from([from]);
    while let Some(file) = queue.pop_front() {
        if file == to {
            let mut way = vec![to];
            while let Some(last) = way.last().filter(|last| **last != from) {
                way.push(before[last]);
            }
            way.reverse();
            return Some(way);
        }
        for ((_, next), _) in imports.range((file, 0)..=(file, usize::MAX)) {
            if !before.contains_key(next) {
                before.insert(*next, file);
                queue.push_back(*next);
            }
        }
    }
    None
}

fn describe(files: &BTreeMap<usize, File>, imports: &Imports, cycle: &[usize]) -> Cycle {
    let next = cycle.iter().cycle().skip(1);
    let steps = cycle
        .iter()
        .zip(next)
        .map(|(from, to)| Import { file: files[from].path.clone(), line: imports[&(*from, *to)] });
    Cycle(steps.collect())
}
