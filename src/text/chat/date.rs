//! The day that a template is told.

/// A day of the Gregorian calendar, at midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// From 1 to 9999.
    pub year: u16,
    /// From 1 to 12.
    pub month: u8,
    /// From 1 to 31.
    pub day: u8,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Default for Date {
    /// 26 July 2024: what Llama 3's own template says where it is told no date. A clock would make the same prompt
    /// another one tomorrow.
    fn default() -> Date {
        Date { year: 2024, month: 7, day: 26 }
    }
}

impl Date {
    /// Python's `strftime` in the C locale, for the directives of dates and of midnight.
    ///
    /// # Errors
    /// The directive that is none of them.
    pub(super) fn format(self, format: &str) -> Result<String, String> {
        let Date { year, month, day } = self;
        let name = |names: &[&'static str], at: usize| names[at % names.len()];
        let (month_name, weekday) = (name(&MONTHS, usize::from(month) + 11), name(&WEEKDAYS, self.weekday()));
        let mut text = String::new();
        let mut rest = format.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            let directive = rest.next();
            let (plain, directive) = if directive == Some('-') { (true, rest.next()) } else { (false, directive) };
            let number = |value: u16, width: usize| {
                if plain { value.to_string() } else { format!("{value:0width$}") }
            };
            text += &match directive {
                Some('Y') => year.to_string(),
                Some('y') => number(year % 100, 2),
                Some('m') => number(month.into(), 2),
                Some('d') => number(day.into(), 2),
                Some('e') => format!("{day:2}"),
                Some('B') => month_name.to_owned(),
                Some('b' | 'h') => month_name[..3].to_owned(),
                Some('A') => weekday.to_owned(),
                Some('a') => weekday[..3].to_owned(),
                Some('F') => format!("{year}-{month:02}-{day:02}"),
                Some('H' | 'M' | 'S') => number(0, 2),
                Some('I') => number(12, 2),
                Some('p') => "AM".to_owned(),
                Some('T') => "00:00:00".to_owned(),
                Some('%') => "%".to_owned(),
                other => return Err(other.map(String::from).unwrap_or_default()),
            };
        }
        Ok(text)
    }

    /// Days after Sunday, by Sakamoto's method.
    fn weekday(self) -> usize {
        const SHIFT: [usize; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = usize::from(self.year) - usize::from(self.month < 3 && self.year > 0);
        (year + year / 4 + year / 400 - year / 100 + SHIFT[(usize::from(self.month) + 11) % 12] + usize::from(self.day))
            % 7
    }
}
