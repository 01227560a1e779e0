//! The warnings of one answer: some of them, and how many more there are.

/// Warnings that one answer lists at most.
const LISTED_MAX: usize = 100;

/// Warnings in the making. It does not grow with their number.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Warnings {
    listed: Vec<String>,
    /// Those beyond [`LISTED_MAX`].
    omitted: usize,
    /// Whether there may be others that nobody counted.
    is_cut: bool,
}

impl Warnings {
    /// Adds warnings.
    pub(super) fn add(&mut self, warnings: impl IntoIterator<Item = String>) {
        self.add_told(warnings.into_iter(), Some);
    }

    /// Adds what `tell` says of each of `items`; it is asked as long as there is room, and the rest is counted.
    pub(super) fn add_told<T>(&mut self, mut items: impl Iterator<Item = T>, tell: impl Fn(T) -> Option<String>) {
        while self.listed.len() < LISTED_MAX {
            let Some(item) = items.next() else { return };
            self.listed.extend(tell(item));
        }
        self.omitted += items.count();
    }

    /// Adds all of `others`.
    pub(super) fn append(&mut self, others: Warnings) {
        self.add(others.listed);
        self.omitted += others.omitted;
        self.is_cut |= others.is_cut;
    }

    /// Notes that there may be others.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// What the answer lists.
    pub(super) fn lines(mut self) -> Vec<String> {
        let more = match (self.omitted, self.is_cut) {
            (0, false) => None,
            (0, true) => Some("and there may be more warnings".to_owned()),
            (1, false) => Some("and 1 more warning".to_owned()),
            (more, false) => Some(format!("and {more} more warnings")),
            (more, true) => Some(format!("and at least {more} more warnings")),
        };
        self.listed.extend(more);
        self.listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_counted() {
        let lines = |count: usize, is_cut: bool| {
            let mut warnings = Warnings::default();
            warnings.add((0..count / 2).map(|number| number.to_string()));
            let mut others = Warnings::default();
            others.add_told(count / 2..count, |number| Some(number.to_string()));
            if is_cut {
                others.cut();
            }
            warnings.append(others);
            warnings.lines()
        };
        assert_eq!(lines(0, false), Vec::<String>::new());
        assert_eq!(lines(100, false).last().map(String::as_str), Some("99"));
        for (count, is_cut, expected) in [
            (101, false, "and 1 more warning"),
            (300, false, "and 200 more warnings"),
            (300, true, "and at least 200 more warnings"),
            (100, true, "and there may be more warnings"),
        ] {
            let lines = lines(count, is_cut);
            assert_eq!((lines.len(), lines.last().map(String::as_str)), (101, Some(expected)));
        }
    }
}
