//! The regions of AWS that cloudping.co measures, and the cities they are named after.
//!
//! A region is several data centres around the city, whose exact positions are not public. An error
//! of 50 km is half a millisecond of round trip, less than the error of the coordinate model.

/// A region and its city.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// AWS's name for it.
    pub name: &'static str,
    /// The city.
    pub city: &'static str,
    /// Degrees north and east of the city.
    pub position: (f64, f64),
}

/// A row of the table.
const fn at(name: &'static str, city: &'static str, north: f64, east: f64) -> Region {
    Region { name, city, position: (north, east) }
}

/// All regions, by name.
pub const REGIONS: [Region; 33] = [
    at("af-south-1", "Cape Town", -33.92, 18.42),
    at("ap-east-1", "Hong Kong", 22.32, 114.17),
    at("ap-east-2", "Taipei", 25.03, 121.57),
    at("ap-northeast-1", "Tokyo", 35.68, 139.69),
    at("ap-northeast-2", "Seoul", 37.57, 126.98),
    at("ap-northeast-3", "Osaka", 34.69, 135.50),
    at("ap-south-1", "Mumbai", 19.08, 72.88),
    at("ap-south-2", "Hyderabad", 17.39, 78.49),
    at("ap-southeast-1", "Singapore", 1.35, 103.82),
    at("ap-southeast-2", "Sydney", -33.87, 151.21),
    at("ap-southeast-3", "Jakarta", -6.21, 106.85),
    at("ap-southeast-4", "Melbourne", -37.81, 144.96),
    at("ap-southeast-5", "Kuala Lumpur", 3.15, 101.70),
    at("ap-southeast-7", "Bangkok", 13.76, 100.50),
    at("ca-central-1", "Montreal", 45.50, -73.57),
    at("ca-west-1", "Calgary", 51.05, -114.07),
    at("eu-central-1", "Frankfurt", 50.11, 8.68),
    at("eu-central-2", "Zurich", 47.37, 8.54),
    at("eu-north-1", "Stockholm", 59.33, 18.07),
    at("eu-south-1", "Milan", 45.46, 9.19),
    at("eu-south-2", "Zaragoza", 41.65, -0.89),
    at("eu-west-1", "Dublin", 53.35, -6.26),
    at("eu-west-2", "London", 51.51, -0.13),
    at("eu-west-3", "Paris", 48.86, 2.35),
    at("il-central-1", "Tel Aviv", 32.09, 34.78),
    at("me-central-1", "Dubai", 25.20, 55.27),
    at("me-south-1", "Manama", 26.23, 50.59),
    at("mx-central-1", "Querétaro", 20.59, -100.39),
    at("sa-east-1", "São Paulo", -23.55, -46.63),
    at("us-east-1", "Ashburn", 39.04, -77.49),
    at("us-east-2", "Columbus", 39.96, -83.00),
    at("us-west-1", "San Francisco", 37.77, -122.42),
    at("us-west-2", "Boardman", 45.84, -119.70),
];

/// The region with this name.
pub fn region(name: &str) -> Option<&'static Region> {
    REGIONS.binary_search_by(|region| region.name.cmp(name)).ok().map(|i| &REGIONS[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_region_is_found_by_its_name() {
        for known in &REGIONS {
            assert_eq!(region(known.name), Some(known));
        }
        assert_eq!(region("eu-central-9"), None);
    }
}
