package container

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math/big"
	"regexp"
	"strings"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

const nameChars = `[a-zA-Z0-9][a-zA-Z0-9_.-]`

// nameRule returns Docker's rule for container names.
func nameRule() *regexp.Regexp { return regexp.MustCompile(`^` + nameChars + `+$`) }

// cleanName validates a name given by a user, with or without its "/".
func cleanName(rule *regexp.Regexp, name string) (string, error) {
	n := strings.TrimPrefix(name, "/")
	if !rule.MatchString(n) {
		return "", errdefs.Invalidf("Invalid container name (%s), only %s are allowed", name, nameChars)
	}
	return n, nil
}

func newID() string {
	var b [32]byte
	for {
		rand.Read(b[:]) // never fails
		id := hex.EncodeToString(b[:])
		// An ID's short form must not look like a number: it is a host name.
		if strings.ContainsAny(id[:12], "abcdef") {
			return id
		}
	}
}

const adjectives = `able agile airy alert amber ample apt arctic ardent astute avid azure balmy bold brave breezy bright
brisk bronze calm candid careful cheery chipper civil clear clever coastal cobalt cool coral cosmic cosy crisp curious daring deft
diligent dreamy eager early earnest easy elated elegant epic fair famous fearless festive fine firm fleet fluent fond frank fresh friendly
frosty gallant gentle gifted glad gleaming golden graceful grand happy hardy helpful honest humble ideal inventive ivory jade jolly
jovial keen kind lilac lively lofty loyal lucid lucky lunar magic mellow merry mighty mild modest neat nimble noble novel
open patient peaceful placid pleasant polar polite prime proud quick quiet radiant rapid ready robust rosy ruby rustic sage
serene sharp silent silver sincere sleek smart snowy solar solid spry steady stellar sturdy subtle sunny swift tidal tidy timely tranquil
true trusty upbeat valiant velvet vivid warm whole wily wise witty worthy zesty`

const nouns = `acorn alder anchor apple arrow aspen atlas badger basin beacon bear beech birch bison brook buoy canyon cedar
cherry cliff clover cobble comet compass condor coral cove crane creek cricket curlew dahlia delta dune eagle egret elk elm ember
falcon fern field finch fjord forest fox garnet geyser glacier gorge granite grove gull harbor hare harp hawk hazel heath heron
hill holly ibis inlet iris island ivy jasper kestrel kite lagoon lake lantern larch lark laurel ledge lemur lily linden lotus lynx
magnet mango maple marble marlin marsh marten meadow mesa mill mint moon moose moss narwhal nebula newt oak oasis olive opal orca
orchid osprey otter owl pebble pelican penguin pepper petrel pine planet plover plum pond poplar prairie puffin quail quartz rapids raven
reef ridge river robin rook rowan saffron salmon sequoia shore sparrow spruce starling stone stork summit swallow swan tern thistle thrush
tide topaz trout tulip tundra valley violet walnut warbler willow wren yarrow zephyr`

// generateName makes up "adjective_noun"; a digit is added after the first tries.
func generateName(try int) string {
	name := pick(adjectives) + "_" + pick(nouns)
	if try > 5 {
		name = fmt.Sprintf("%s%d", name, try)
	}
	return name
}

func pick(words string) string {
	list := strings.Fields(words)
	n, err := rand.Int(rand.Reader, big.NewInt(int64(len(list))))
	if err != nil { // crypto/rand.Reader does not fail
		return list[0]
	}
	return list[n.Int64()]
}
