# Everyday Perl: regular expressions, hashes, sorting, string building. Prints checksums.
use strict;
use warnings;

my ($total, $seed) = (0, 7);
for my $round (1 .. $ARGV[0]) {
	my (%count, $text);
	for (1 .. 6000) {
		$seed = ($seed * 16807) % 2147483647;
		my $word = sprintf "%s%d", chr(97 + $seed % 26) x ($seed % 5 + 1), $seed % 1000;
		$count{$word}++;
		$text .= "$word, ";
	}
	while ($text =~ /([aeiou]+)(\d{2,3}), (?=[b-d])/g) { $total += length($1) * $2 }
	(my $other = $text) =~ s/(\w)(\d+)/<$2$1>/g;
	$total += length $other;
	$total += $_ for map { $count{$_} * length } (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count)[0 .. 500];
	$total += unpack("%32C*", join "", reverse split //, $text);
}
print "$total\n";
