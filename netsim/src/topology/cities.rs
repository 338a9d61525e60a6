//! Built-in cities with servers, for a world that needs no file.
//!
//! The shares follow what published lists of validators have in common: six in ten are in Europe,
//! half of those in the data centres of Frankfurt, Amsterdam and London; a quarter in North
//! America; the rest spread thinly far away, which makes the tail of a broadcast. The shares are
//! rounded by hand and not a census. Weights do not depend on the city.

/// A city.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct City {
    pub(super) name: &'static str,
    /// Degrees north and east.
    pub(super) position: (f64, f64),
    /// Nodes per thousand.
    pub(super) share: u64,
}

/// A row of the table.
const fn at(name: &'static str, north: f64, east: f64, share: u64) -> City {
    City { name, position: (north, east), share }
}

/// All cities, by continent.
pub(super) const CITIES: [City; 82] = [
    // Europe: 602.
    at("Frankfurt", 50.11, 8.68, 110),
    at("Amsterdam", 52.37, 4.90, 112),
    at("London", 51.51, -0.13, 62),
    at("Paris", 48.86, 2.35, 34),
    at("Nuremberg", 49.45, 11.08, 28),
    at("Helsinki", 60.17, 24.94, 25),
    at("Dublin", 53.35, -6.26, 18),
    at("Warsaw", 52.23, 21.01, 18),
    at("Oslo", 59.91, 10.75, 16),
    at("Vilnius", 54.69, 25.28, 16),
    at("Stockholm", 59.33, 18.07, 14),
    at("Zurich", 47.37, 8.54, 14),
    at("Rotterdam", 51.92, 4.48, 10),
    at("Roubaix", 50.69, 3.17, 10),
    at("Madrid", 40.42, -3.70, 10),
    at("Milan", 45.46, 9.19, 8),
    at("Prague", 50.08, 14.44, 8),
    at("Vienna", 48.21, 16.37, 8),
    at("Strasbourg", 48.58, 7.75, 6),
    at("Riga", 56.95, 24.11, 6),
    at("Moscow", 55.76, 37.62, 6),
    at("Brussels", 50.85, 4.35, 5),
    at("Luxembourg", 49.61, 6.13, 5),
    at("Copenhagen", 55.68, 12.57, 5),
    at("Marseille", 43.30, 5.37, 5),
    at("Berlin", 52.52, 13.40, 5),
    at("Munich", 48.14, 11.58, 5),
    at("Bucharest", 44.43, 26.10, 5),
    at("Sofia", 42.70, 23.32, 5),
    at("Manchester", 53.48, -2.24, 4),
    at("Kyiv", 50.45, 30.52, 4),
    at("Lisbon", 38.72, -9.14, 4),
    at("Budapest", 47.50, 19.04, 3),
    at("Tallinn", 59.44, 24.75, 3),
    at("Istanbul", 41.01, 28.98, 3),
    at("Athens", 37.98, 23.73, 2),
    // North America: 247.
    at("Ashburn", 39.04, -77.49, 52),
    at("New York", 40.71, -74.01, 52),
    at("Chicago", 41.88, -87.63, 28),
    at("Dallas", 32.78, -96.80, 16),
    at("Los Angeles", 34.05, -118.24, 16),
    at("Salt Lake City", 40.76, -111.89, 14),
    at("San Jose", 37.34, -121.89, 12),
    at("Montreal", 45.50, -73.57, 10),
    at("Seattle", 47.61, -122.33, 8),
    at("Miami", 25.76, -80.19, 7),
    at("Hillsboro", 45.52, -122.99, 6),
    at("Atlanta", 33.75, -84.39, 6),
    at("Toronto", 43.65, -79.38, 5),
    at("Columbus", 39.96, -83.00, 4),
    at("Denver", 39.74, -104.99, 3),
    at("Kansas City", 39.10, -94.58, 3),
    at("Querétaro", 20.59, -100.39, 3),
    at("Vancouver", 49.28, -123.12, 2),
    // South America: 20.
    at("São Paulo", -23.55, -46.63, 12),
    at("Santiago", -33.45, -70.67, 4),
    at("Buenos Aires", -34.60, -58.38, 3),
    at("Bogotá", 4.71, -74.07, 1),
    // Asia: 102.
    at("Tokyo", 35.68, 139.69, 36),
    at("Singapore", 1.35, 103.82, 28),
    at("Seoul", 37.57, 126.98, 10),
    at("Hong Kong", 22.32, 114.17, 8),
    at("Mumbai", 19.08, 72.88, 6),
    at("Osaka", 34.69, 135.50, 3),
    at("Taipei", 25.03, 121.57, 3),
    at("Chennai", 13.08, 80.27, 2),
    at("Bangkok", 13.76, 100.50, 1),
    at("Jakarta", -6.21, 106.85, 1),
    at("Kuala Lumpur", 3.15, 101.70, 1),
    at("Manila", 14.60, 120.98, 1),
    at("Ho Chi Minh City", 10.82, 106.63, 1),
    at("Almaty", 43.24, 76.89, 1),
    // Middle East: 5.
    at("Dubai", 25.20, 55.27, 3),
    at("Tel Aviv", 32.09, 34.78, 2),
    // Africa: 10.
    at("Johannesburg", -26.20, 28.05, 6),
    at("Cape Town", -33.92, 18.42, 2),
    at("Lagos", 6.52, 3.38, 1),
    at("Nairobi", -1.29, 36.82, 1),
    // Oceania: 14.
    at("Sydney", -33.87, 151.21, 9),
    at("Melbourne", -37.81, 144.96, 2),
    at("Auckland", -36.85, 174.76, 2),
    at("Perth", -31.95, 115.86, 1),
];
