//! Query parameters: each known, each at most once. A misspelt parameter that is ignored (`?dryrun=true`) would be a write.

use axum::extract::Query;
use http::Uri;

use super::problem::Problem;

/// The parameters of one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the query of `uri`, which may have the parameters in `known` only.
    pub(crate) fn read(uri: &Uri, known: &[&str]) -> Result<Parameters, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|rejection| Problem::malformed(format!("query: {}", rejection.body_text())))?;
        for (index, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Problem::malformed(format!("query parameter {name:?} is not known here (known: {known})")));
            }
            if pairs.iter().take(index).any(|(earlier, _)| earlier == name) {
                return Err(Problem::malformed(format!("query parameter {name:?} stands twice")));
            }
        }
        Ok(Parameters(pairs))
    }

    /// The value of `name`, if it is there.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A switch: `true`, `false`, or the bare name for `true`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(other) => Err(Problem::malformed(format!("query parameter {name:?} is true or false, not {other:?}"))),
        }
    }

    /// Whether `name` is there; its value must be `value`, or `otherwise`, which counts as not there.
    pub(crate) fn choice(&self, name: &str, value: &str, otherwise: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None => Ok(false),
            Some(given) if given == otherwise => Ok(false),
            Some(given) if given == value => Ok(true),
            Some(given) => Err(Problem::malformed(format!("query parameter {name:?} is {value} or {otherwise}, not {given:?}"))),
        }
    }

    /// A number from 1 to `max`.
    pub(crate) fn number(&self, name: &str, default: usize, max: usize) -> Result<usize, Problem> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = text.parse::<usize>().ok().filter(|number| (1..=max).contains(number));
        number.ok_or_else(|| Problem::malformed(format!("query parameter {name:?} is a number from 1 to {max}, not {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Parameters, Problem> {
        let uri = format!("/v1/routes?{query}").parse().expect("a URI");
        Parameters::read(&uri, &["limit", "dryRun", "consistency"])
    }

    #[test]
    fn what_is_not_known_or_repeated_is_refused() {
        for (query, part) in [("dryrun=true", "dryrun"), ("limit=1&limit=2", "twice"), ("%ff=1", "\u{fffd}")] {
            let problem = format!("{:?}", read(query).expect_err(query));
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn values_are_checked() {
        let read = |query| read(query).expect(query);
        assert_eq!(read("dryRun").flag("dryRun"), Ok(true));
        assert_eq!(read("dryRun=false").flag("dryRun"), Ok(false));
        assert!(read("dryRun=yes").flag("dryRun").is_err());
        assert_eq!(read("limit=7").number("limit", 100, 1000), Ok(7));
        assert_eq!(read("").number("limit", 100, 1000), Ok(100));
        for bad in ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit="] {
            assert!(read(bad).number("limit", 100, 1000).is_err(), "{bad}");
        }
        assert_eq!(read("consistency=local").choice("consistency", "local", "linearizable"), Ok(true));
        assert!(read("consistency=stale").choice("consistency", "local", "linearizable").is_err());
    }
}
